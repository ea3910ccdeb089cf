// Codex, the coding assistant of the command line, which speaks Responses and nothing else.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { KEY, LONG, TEXT, URL_V1, run } from "../cases.mjs";

const CODEX = join(dirname(fileURLToPath(import.meta.url)), "node_modules", ".bin", "codex");
const home = mkdtempSync(join(tmpdir(), "hearth-codex-"));
const CONFIG = `\
model = "automaton"
model_provider = "hearth"
[model_providers.hearth]
name = "Hearth"
base_url = "${URL_V1}"
env_key = "HEARTH_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
`;
writeFileSync(join(home, "config.toml"), CONFIG);

/** What `codex exec` did: its exit code, what it printed, its last message, and its events. */
function codex(prompt, { options = [], key = KEY, command = ["exec"] } = {}) {
  const last = join(home, "last.txt");
  writeFileSync(last, "");
  const asked = [...command, "--skip-git-repo-check", "--json", "--output-last-message", last, ...options, prompt];
  const told = { cwd: home, timeout: 60_000, env: { ...process.env, CODEX_HOME: home, HEARTH_KEY: key } };
  return new Promise((resolve) => {
    const child = execFile(CODEX, asked, told, (fault, out, err) => {
      const events = out.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
      resolve({ code: fault ? fault.code : 0, said: out + err, message: readFileSync(last, "utf8").trim(), events });
    });
    child.stdin.end();
  });
}

try {
  await run({
    async answers() {
      const done = await codex("Hello");
      assert.equal(done.code, 0, done.said);
      assert.equal(done.message, TEXT);
    },
    async counts_tokens() {
      const { usage } = (await codex("Hello")).events.find((event) => event.type === "turn.completed");
      assert.ok(usage.input_tokens > 1000 && usage.output_tokens > 10, JSON.stringify(usage));
    },
    async goes_on_with_a_session() {
      const done = await codex("And?", { command: ["exec", "resume", "--last"] });
      assert.equal(done.code, 0, done.said);
      assert.equal(done.message, TEXT);
    },
    async has_most_of_its_prompt_cached() {
      const { usage } = (await codex("Hello")).events.find((event) => event.type === "turn.completed");
      assert.ok(usage.cached_input_tokens > usage.input_tokens / 2, JSON.stringify(usage));
    },
    async takes_a_schema_for_its_answer() {
      const schema = join(home, "schema.json");
      const wanted = {
        type: "object", properties: { done: { type: "boolean" } }, required: ["done"], additionalProperties: false,
      };
      writeFileSync(schema, JSON.stringify(wanted));
      const done = await codex("Hello", { options: ["--output-schema", schema] });
      assert.equal(done.code, 0, done.said);
      assert.equal(typeof JSON.parse(done.message).done, "boolean");
    },
    async tells_of_a_wrong_key() {
      const done = await codex("Hello", { key: "sk-wrong" });
      assert.notEqual(done.code, 0);
      assert.match(done.said, /401|key/);
    },
    async tells_of_a_model_that_is_not_there() {
      const done = await codex("Hello", { options: ["--model", "automatn"] });
      assert.notEqual(done.code, 0);
      assert.match(done.said, /automatn/);
      assert.match(done.said, /This server has/);
    },
    async tells_of_too_long_a_conversation() {
      const done = await codex(LONG.slice(0, 100_000).replaceAll(" ", "\n"), { options: ["--model", "late"] });
      assert.notEqual(done.code, 0);
      assert.match(done.said, /context window/);
    },
    async tells_of_a_fault_in_the_middle() {
      const done = await codex("one two three four five", { options: ["--model", "late"] });
      assert.notEqual(done.code, 0);
    },
  });
} finally {
  rmSync(home, { recursive: true, force: true });
}
