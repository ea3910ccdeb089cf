// Claude Code, the coding assistant of the command line, which speaks Messages and asks for models of its own names.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { KEY, SERVER, TEXT, run } from "../cases.mjs";

const CLAUDE = join(dirname(fileURLToPath(import.meta.url)), "node_modules", ".bin", "claude");
const home = mkdtempSync(join(tmpdir(), "hearth-claude-"));

/** What `claude -p` did: its exit code, what it printed, and its last line as JSON where it has one. */
function claude(prompt, { options = [], key = KEY } = {}) {
  const env = {
    PATH: process.env.PATH,
    HOME: home,
    ANTHROPIC_BASE_URL: SERVER,
    ANTHROPIC_API_KEY: key,
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    CLAUDE_CODE_MAX_RETRIES: "0",
  };
  const asked = ["-p", "--output-format", "json", ...options, prompt];
  return new Promise((resolve) => {
    const child = execFile(CLAUDE, asked, { cwd: home, timeout: 90_000, env }, (fault, out, err) => {
      const line = out.trim().split("\n").at(-1);
      const result = line?.startsWith("{") ? JSON.parse(line) : {};
      resolve({ code: fault ? fault.code : 0, said: out + err, result });
    });
    child.stdin.end();
  });
}

try {
  await run({
    async answers() {
      const done = await claude("Hello");
      assert.equal(done.code, 0, done.said);
      assert.equal(done.result.result, TEXT);
    },
    async counts_tokens() {
      const { usage } = (await claude("Hello")).result;
      assert.ok(usage.output_tokens > 10, JSON.stringify(usage));
    },
    async has_most_of_its_prompt_cached() {
      const { usage } = (await claude("Hello")).result;
      assert.ok(usage.cache_read_input_tokens > usage.input_tokens, JSON.stringify(usage));
    },
    async goes_on_with_a_session() {
      const done = await claude("And?", { options: ["--continue"] });
      assert.equal(done.code, 0, done.said);
      assert.equal(done.result.result, TEXT);
    },
    async asks_for_a_model_by_its_name() {
      const done = await claude("Hello", { options: ["--model", "automaton"] });
      assert.equal(done.code, 0, done.said);
      assert.equal(done.result.result, TEXT);
    },
    async tells_of_a_wrong_key() {
      const done = await claude("Hello", { key: "sk-wrong" });
      assert.notEqual(done.code, 0);
      assert.match(done.said, /401|key/);
    },
    async tells_of_a_model_that_is_not_there() {
      const done = await claude("Hello", { options: ["--model", "automatn"] });
      assert.notEqual(done.code, 0);
      assert.match(done.said, /automatn/);
    },
  });
} finally {
  rmSync(home, { recursive: true, force: true });
}
