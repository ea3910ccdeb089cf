// The ai SDK with its OpenAI-compatible package, which Cline and many web applications use.

import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embed, embedMany, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";
import { KEY, LONG, TEXT, URL_V1, freed, refused, run } from "../cases.mjs";

const hearth = createOpenAICompatible({
  name: "hearth", baseURL: URL_V1, apiKey: KEY, includeUsage: true, supportsStructuredOutputs: true,
});
const Trip = z.object({ city: z.string().max(8), days: z.number().int().min(0).max(99) });
const weather = tool({ description: "Tells it.", inputSchema: Trip });
const asked = (model, changes = {}) => ({
  model: hearth(model), prompt: "Hello", temperature: 0, maxRetries: 0, ...changes,
});

await run({
  async whole() {
    const answer = await generateText(asked("automaton", { system: "Be brief." }));
    assert.equal(answer.text, TEXT);
    assert.equal(answer.finishReason, "stop");
    assert.equal(answer.usage.totalTokens, answer.usage.inputTokens + answer.usage.outputTokens);
  },
  async streamed() {
    const answer = streamText(asked("automaton"));
    let text = "";
    for await (const piece of answer.textStream) text += piece;
    assert.equal(text, TEXT);
    assert.equal(await answer.finishReason, "stop");
    assert.ok((await answer.usage).outputTokens > 10);
  },
  async limits_stop_and_seed() {
    const short = await generateText(asked("automaton", { maxOutputTokens: 3, seed: 1 }));
    assert.equal(short.finishReason, "length");
    const stopped = await generateText(asked("automaton", { stopSequences: ["very sm"] }));
    assert.equal(stopped.text, TEXT.slice(0, TEXT.indexOf("very small")));
  },
  async tools_offered() {
    const answer = await generateText(asked("automaton", { tools: { weather } }));
    assert.equal(answer.text, TEXT);
    assert.deepEqual(answer.toolCalls, []);
  },
  async tools_required() {
    const answer = await generateText(asked("random", {
      tools: { weather }, toolChoice: "required", providerOptions: { hearth: { parallel_tool_calls: false } },
    }));
    assert.equal(answer.finishReason, "tool-calls");
    assert.equal(answer.toolCalls.length, 1);
    Trip.parse(answer.toolCalls[0].input);
  },
  async tools_by_name_streamed() {
    const answer = streamText(
      asked("random", { tools: { weather }, toolChoice: { type: "tool", toolName: "weather" } }),
    );
    await answer.consumeStream();
    const calls = await answer.toolCalls;
    assert.equal(calls.length, 1);
    assert.equal(calls[0].toolName, "weather");
    Trip.parse(calls[0].input);
    assert.equal(await answer.finishReason, "tool-calls");
  },
  async tools_run_by_the_sdk() {
    const ran = [];
    const answer = await generateText({
      ...asked("random"),
      tools: { weather: tool({ inputSchema: Trip, execute: async (given) => { ran.push(given); return "Rain"; } }) },
      toolChoice: { type: "tool", toolName: "weather" },
      stopWhen: stepCountIs(2),
    });
    assert.equal(answer.steps.length, 2);
    assert.equal(ran.length, 2);
    Trip.parse(ran[0]);
  },
  async objects() {
    for (const model of ["automaton", "random"]) {
      const answer = await generateObject(asked(model, { schema: Trip }));
      Trip.parse(answer.object);
    }
  },
  async objects_streamed() {
    const answer = streamObject(asked("random", { schema: Trip }));
    for await (const _ of answer.partialObjectStream);
    Trip.parse(await answer.object);
  },
  async reasoning_apart_from_the_answer() {
    const response_format = { type: "regex", pattern: "<think>hm</think>yes" };
    const thinking = createOpenAICompatible({
      name: "hearth", baseURL: URL_V1, apiKey: KEY, transformRequestBody: (body) => ({ ...body, response_format }),
    });
    const asked = { model: thinking("random"), prompt: "Hello", maxRetries: 0 };
    const whole = await generateText(asked);
    assert.deepEqual([whole.reasoningText, whole.text], ["hm", "yes"]);
    const streamed = streamText(asked);
    await streamed.consumeStream();
    assert.deepEqual([await streamed.reasoningText, await streamed.text], ["hm", "yes"]);
  },
  async embeddings() {
    const one = await embed({ model: hearth.textEmbeddingModel("embed"), value: "a cat", maxRetries: 0 });
    const two = await embedMany({ model: hearth.textEmbeddingModel("embed"), values: ["a cat", "a kitten"], maxRetries: 0 });
    assert.equal(two.embeddings.length, 2);
    assert.ok(one.embedding.every((number, index) => Math.abs(number - two.embeddings[0][index]) < 1e-3));
    assert.ok(two.usage.tokens > 0);
  },
  async a_wrong_key() {
    const other = createOpenAICompatible({ name: "hearth", baseURL: URL_V1, apiKey: "sk-wrong" });
    const fault = await refused(() => generateText({ model: other("automaton"), prompt: "Hello", maxRetries: 0 }));
    assert.ok(APICallError.isInstance(fault));
    assert.equal(fault.statusCode, 401);
    assert.match(fault.message, /key/);
  },
  async a_model_that_is_not_there() {
    const fault = await refused(() => generateText(asked("automatn")));
    assert.equal(fault.statusCode, 404);
    assert.match(fault.message, /automaton/);
  },
  async more_than_the_context() {
    const fault = await refused(() => generateText(asked("automaton", { prompt: LONG })));
    assert.equal(fault.data.error.code, "context_length_exceeded");
  },
  async a_fault_in_the_middle_of_a_stream() {
    const answer = streamText(asked("late", { prompt: "one two three four five", onError: () => {} }));
    const faults = [];
    for await (const part of answer.fullStream) if (part.type === "error") faults.push(part.error);
    assert.equal(faults.length, 1);
    assert.match(JSON.stringify(faults[0]) + String(faults[0].message ?? faults[0]), /deadline|within/);
  },
  async a_client_that_leaves() {
    const leaving = new AbortController();
    const answer = streamText(asked("random", { abortSignal: leaving.signal, maxOutputTokens: 1500 }));
    for await (const _ of answer.textStream) break;
    leaving.abort();
    await freed("random");
  },
});
