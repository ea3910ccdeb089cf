// The openai SDK for JavaScript.

import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { HELLO, KEY, LONG, SERVER, TEXT, TRIP, URL_V1, freed, refused, run } from "../cases.mjs";

const sdk = new OpenAI({ baseURL: URL_V1, apiKey: KEY, maxRetries: 0, timeout: 60_000 });
const WEATHER = { type: "function", function: { name: "weather", description: "Tells it.", parameters: TRIP } };
const FLAT = { type: "function", name: "weather", parameters: TRIP, strict: true };
const Trip = z.object({ city: z.string().max(8), days: z.number().int().min(0).max(99) });
const ONE_CALL = { tools: [WEATHER], tool_choice: "required", parallel_tool_calls: false };

const say = (changes = {}) =>
  sdk.chat.completions.create({ model: "automaton", messages: HELLO, temperature: 0, ...changes });

async function all(stream) {
  const found = [];
  for await (const each of stream) found.push(each);
  return found;
}

await run({
  async whole() {
    const answer = await say();
    assert.equal(answer.choices[0].message.content, TEXT);
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  },
  async streamed() {
    const chunks = await all(await say({ stream: true }));
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), TEXT);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  },
  async usage_in_a_stream() {
    const chunks = await all(await say({ stream: true, stream_options: { include_usage: true } }));
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.ok(chunks.at(-1).usage.completion_tokens > 10);
    assert.ok(chunks.slice(0, -1).every((chunk) => chunk.usage === null));
  },
  async streamed_by_the_helper() {
    const stream = sdk.chat.completions.stream({ model: "automaton", messages: HELLO });
    assert.equal(await stream.finalContent(), TEXT);
    assert.equal((await stream.finalChatCompletion()).choices[0].finish_reason, "stop");
  },
  async limits_and_stop_strings() {
    const short = await say({ max_tokens: 50, max_completion_tokens: 3 });
    assert.equal(short.choices[0].finish_reason, "length");
    assert.equal(short.usage.completion_tokens, 3);
    const stopped = await say({ stop: ["very sm"] });
    assert.equal(stopped.choices[0].message.content, TEXT.slice(0, TEXT.indexOf("very small")));
  },
  async choices_and_log_probabilities() {
    const asked = { model: "random", n: 3, seed: 7, temperature: 1, max_tokens: 8, logprobs: true, top_logprobs: 2 };
    const answer = await say(asked);
    assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1, 2]);
    assert.ok(answer.choices.every((choice) => choice.logprobs.content.length >= 1));
    const again = await say(asked);
    assert.equal(again.choices[1].message.content, answer.choices[1].message.content);
  },
  async tools_offered() {
    const answer = await say({ tools: [WEATHER, { type: "function", function: { name: "time" } }] });
    assert.equal(answer.choices[0].message.content, TEXT);
    assert.equal(answer.choices[0].message.tool_calls, undefined);
  },
  async tools_required_and_named() {
    for (const tool_choice of ["required", { type: "function", function: { name: "weather" } }]) {
      const [choice] = (await say({ ...ONE_CALL, model: "random", tool_choice })).choices;
      assert.equal(choice.finish_reason, "tool_calls");
      assert.equal(choice.message.tool_calls.length, 1);
      Trip.parse(JSON.parse(choice.message.tool_calls[0].function.arguments));
    }
  },
  async tools_streamed_by_the_helper() {
    const stream = sdk.chat.completions.stream({ ...ONE_CALL, model: "random", messages: HELLO });
    const [choice] = (await stream.finalChatCompletion()).choices;
    assert.equal(choice.finish_reason, "tool_calls");
    assert.equal(choice.message.tool_calls.length, 1);
    assert.equal(choice.message.tool_calls[0].function.name, "weather");
    Trip.parse(JSON.parse(choice.message.tool_calls[0].function.arguments));
  },
  async tools_run_by_the_sdk() {
    const ran = [];
    const tool = zodFunction({
      name: "trip",
      parameters: Trip,
      function: (given) => {
        ran.push(given);
        return "Rain";
      },
    });
    const runner = sdk.chat.completions.runTools({
      model: "random", messages: HELLO, tools: [tool], tool_choice: { type: "function", function: { name: "trip" } },
      parallel_tool_calls: false, max_tokens: 200,
    });
    await runner.done();
    assert.equal(ran.length, 1);
    Trip.parse(ran[0]);
  },
  async a_schema_parsed_by_the_sdk() {
    for (const model of ["automaton", "random"]) {
      const answer = await sdk.chat.completions.parse({
        model, messages: HELLO, temperature: 0, response_format: zodResponseFormat(Trip, "trip"),
      });
      Trip.parse(answer.choices[0].message.parsed);
    }
  },
  async json_objects() {
    const answer = await say({ response_format: { type: "json_object" } });
    assert.equal(typeof JSON.parse(answer.choices[0].message.content), "object");
  },
  async a_wrong_key() {
    const fault = await refused(() => sdk.withOptions({ apiKey: "sk-wrong" }).models.list());
    assert.ok(fault instanceof OpenAI.AuthenticationError);
    assert.equal(fault.code, "invalid_api_key");
  },
  async a_model_that_is_not_there() {
    const fault = await refused(() => say({ model: "automatn" }));
    assert.ok(fault instanceof OpenAI.NotFoundError);
    assert.equal(fault.code, "model_not_found");
    assert.match(fault.message, /automaton/);
  },
  async a_route_that_is_not_there() {
    const fault = await refused(() => sdk.post("/nothing", { body: {} }));
    assert.ok(fault instanceof OpenAI.NotFoundError);
    assert.match(fault.message, /nothing/);
  },
  async more_than_the_context() {
    const fault = await refused(() => say({ messages: [{ role: "user", content: LONG }], stream: true }));
    assert.ok(fault instanceof OpenAI.BadRequestError);
    assert.equal(fault.code, "context_length_exceeded");
  },
  async a_fault_in_the_middle_of_a_stream() {
    const seen = [];
    const fault = await refused(async () => {
      const asked = { model: "late", stream: true, messages: [{ role: "user", content: "one two three four five" }] };
      for await (const chunk of await say(asked)) seen.push(chunk);
    });
    assert.ok(fault instanceof OpenAI.APIError);
    assert.equal(fault.code, "deadline_exceeded");
    assert.ok(seen.length > 0);
  },
  async a_client_that_leaves() {
    const stream = await say({ model: "random", stream: true, max_tokens: 1500, ignore_eos: true });
    for await (const _ of stream) break;
    stream.controller.abort();
    await freed("random");
  },
  async headers_for_a_browser() {
    const names = ["authorization", "content-type", "x-stainless-os", "x-stainless-retry-count"];
    const reply = await fetch(`${URL_V1}/chat/completions`, {
      method: "OPTIONS",
      headers: {
        origin: "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": names.join(","),
      },
    });
    assert.equal(reply.status, 204);
    const allowed = reply.headers.get("access-control-allow-headers").toLowerCase();
    for (const name of names) assert.ok(allowed.includes(name), allowed);
    assert.equal(reply.headers.get("access-control-allow-origin"), "http://localhost:3000");
  },
  async models() {
    const listed = await all(await sdk.models.list());
    for (const id of ["automaton", "random", "embed", "rerank"]) assert.ok(listed.some((each) => each.id === id));
    assert.equal((await sdk.models.retrieve("automaton")).object, "model");
  },
  async embeddings() {
    const coded = await sdk.embeddings.create({ model: "embed", input: ["a cat", "a kitten"] });
    const plain = await sdk.embeddings.create({ model: "embed", input: "a cat", encoding_format: "float" });
    const [first, second] = [coded.data[0].embedding, plain.data[0].embedding];
    assert.equal(first.length, second.length);
    assert.ok(first.every((number, index) => Math.abs(number - second[index]) < 1e-5));
  },
  async completions_of_the_older_wire() {
    const answer = await sdk.completions.create({ model: "automaton", prompt: "Hello this", max_tokens: 3 });
    assert.ok(TEXT.startsWith(`Hello this${answer.choices[0].text}`));
  },
  async a_base_url_without_its_version() {
    const other = new OpenAI({ baseURL: SERVER, apiKey: KEY, maxRetries: 0 });
    const answer = await other.chat.completions.create({ model: "automaton", messages: HELLO });
    assert.equal(answer.choices[0].message.content, TEXT);
  },
  async responses() {
    const answer = await sdk.responses.create({ model: "automaton", input: "Hello" });
    assert.equal(answer.output_text, TEXT);
    assert.equal(answer.status, "completed");
  },
  async responses_streamed() {
    const stream = sdk.responses.stream({ model: "automaton", input: "Hello" });
    const events = await all(stream);
    assert.equal(events[0].type, "response.created");
    assert.equal(events.at(-1).type, "response.completed");
    assert.equal((await stream.finalResponse()).output_text, TEXT);
  },
  async responses_parsed() {
    const answer = await sdk.responses.parse({
      model: "random", input: "Hello", temperature: 0, text: { format: zodTextFormat(Trip, "trip") },
    });
    Trip.parse(answer.output_parsed);
  },
  async responses_with_tools() {
    const answer = await sdk.responses.create({
      model: "random", input: "Hello", tools: [FLAT], tool_choice: "required", parallel_tool_calls: false, temperature: 0,
    });
    const [call] = answer.output.filter((item) => item.type === "function_call");
    Trip.parse(JSON.parse(call.arguments));
    const result = { type: "function_call_output", call_id: call.call_id, output: "Rain" };
    const again = await sdk.responses.create({
      model: "automaton", input: [result], previous_response_id: answer.id,
    });
    assert.equal(again.output_text, TEXT);
  },
  async files_and_vector_stores() {
    const text = "# Port\n\nSet server.listen to change the port.\n";
    const file = await sdk.files.create({ file: await toFile(Buffer.from(text), "notes.md"), purpose: "assistants" });
    const store = await sdk.vectorStores.create({ name: "notes" });
    try {
      const added = await sdk.vectorStores.files.createAndPoll(store.id, { file_id: file.id }, { pollIntervalMs: 50 });
      assert.equal(added.status, "completed");
      const found = await sdk.vectorStores.search(store.id, { query: "How do I change the port?" });
      assert.equal(found.data[0].file_id, file.id);
      assert.equal(await (await sdk.files.content(file.id)).text(), text);
    } finally {
      await sdk.vectorStores.delete(store.id);
      await sdk.files.delete(file.id);
    }
  },
});
