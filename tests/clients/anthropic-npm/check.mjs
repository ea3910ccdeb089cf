// The anthropic SDK for JavaScript, against /v1/messages.

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { HELLO, KEY, LONG, SERVER, TEXT, TRIP, freed, refused, run } from "../cases.mjs";

const sdk = new Anthropic({ baseURL: SERVER, apiKey: KEY, maxRetries: 0, timeout: 60_000 });
const WEATHER = { name: "weather", description: "Tells it.", input_schema: TRIP };
const NAMED = { tools: [WEATHER], tool_choice: { type: "tool", name: "weather" } };
const asked = (changes = {}) => ({
  model: "automaton", messages: HELLO, max_tokens: 400, temperature: 0, ...changes,
});
const say = (changes) => sdk.messages.create(asked(changes));

function trip(found) {
  assert.deepEqual(Object.keys(found).sort(), ["city", "days"]);
  assert.ok(found.city.length <= 8 && Number.isInteger(found.days));
}

await run({
  async whole() {
    const answer = await say({ system: "Be brief." });
    assert.deepEqual(answer.content.map((block) => [block.type, block.text]), [["text", TEXT]]);
    assert.equal(answer.stop_reason, "end_turn");
    assert.ok(answer.usage.input_tokens > 0 && answer.usage.output_tokens > 10);
  },
  async streamed() {
    const kinds = [];
    for await (const event of await say({ stream: true })) kinds.push(event.type);
    assert.equal(kinds[0], "message_start");
    assert.equal(kinds.at(-1), "message_stop");
  },
  async streamed_by_the_helper() {
    const stream = sdk.messages.stream(asked());
    let text = "";
    stream.on("text", (piece) => (text += piece));
    const final = await stream.finalMessage();
    assert.equal(text, TEXT);
    assert.equal(final.content[0].text, TEXT);
    assert.equal(final.stop_reason, "end_turn");
  },
  async limits_and_stop_sequences() {
    assert.equal((await say({ max_tokens: 3 })).stop_reason, "max_tokens");
    const stopped = await say({ stop_sequences: ["very sm"] });
    assert.equal(stopped.stop_reason, "stop_sequence");
    assert.equal(stopped.content[0].text, TEXT.slice(0, TEXT.indexOf("very small")));
  },
  async tools_offered() {
    assert.equal((await say({ tools: [WEATHER] })).content[0].text, TEXT);
  },
  async tools_by_name() {
    const answer = await say({ ...NAMED, model: "random" });
    assert.equal(answer.stop_reason, "tool_use");
    trip(answer.content.find((block) => block.type === "tool_use").input);
  },
  async tools_streamed_by_the_helper() {
    const final = await sdk.messages.stream(asked({ ...NAMED, model: "random" })).finalMessage();
    assert.equal(final.stop_reason, "tool_use");
    trip(final.content.find((block) => block.type === "tool_use").input);
  },
  async a_call_and_its_result() {
    const first = await say({ ...NAMED, model: "random" });
    const call = first.content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: call.id, content: "Rain" };
    const again = await say({
      tools: [WEATHER],
      messages: [...HELLO, { role: "assistant", content: first.content }, { role: "user", content: [result] }],
    });
    assert.equal(again.content[0].text, TEXT);
  },
  async tokens_are_counted() {
    const counted = await sdk.messages.countTokens({ model: "automaton", messages: HELLO });
    const { usage } = await say({ max_tokens: 1 });
    assert.equal(counted.input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
  },
  async a_wrong_key() {
    const other = new Anthropic({ baseURL: SERVER, apiKey: "sk-wrong", maxRetries: 0 });
    const fault = await refused(() => other.messages.create(asked()));
    assert.ok(fault instanceof Anthropic.AuthenticationError);
  },
  async a_model_that_is_not_there() {
    const fault = await refused(() => say({ model: "automatn" }));
    assert.ok(fault instanceof Anthropic.NotFoundError);
    assert.equal(fault.error.error.type, "not_found_error");
    assert.match(fault.message, /automaton/);
  },
  async more_than_the_context() {
    const fault = await refused(() => say({ messages: [{ role: "user", content: LONG }] }));
    assert.ok(fault instanceof Anthropic.BadRequestError);
    assert.equal(fault.error.error.type, "invalid_request_error");
  },
  async a_fault_in_the_middle_of_a_stream() {
    const seen = [];
    const fault = await refused(async () => {
      const late = { model: "late", stream: true, messages: [{ role: "user", content: "one two three four five" }] };
      for await (const event of await say(late)) seen.push(event);
    });
    assert.ok(fault instanceof Anthropic.APIError);
    assert.ok(seen.length > 0);
  },
  async a_client_that_leaves() {
    const stream = await say({ model: "random", stream: true, max_tokens: 4000 });
    for await (const _ of stream) break;
    stream.controller.abort();
    await freed("random");
  },
});
