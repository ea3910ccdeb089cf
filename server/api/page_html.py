"""The page of `/docs` itself: markup, style and the script that reads /openapi.json."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #c2410c; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1.5rem; }
h1 { margin: 0; } h2 { margin: 2.5rem 0 .25rem; border-bottom: 1px solid var(--line); }
h1 small { font-size: .9rem; font-weight: normal; opacity: .7; }
code, pre, textarea { font: 13px/1.45 ui-monospace, monospace; }
pre, textarea { background: var(--soft); padding: .6rem; overflow: auto; max-height: 26rem; border-radius: .3rem; }
textarea { width: 100%; min-height: 9rem; border: 1px solid var(--line); color: inherit; }
details.route { border: 1px solid var(--line); border-radius: .4rem; margin: .4rem 0; }
details.route > summary { cursor: pointer; padding: .45rem .7rem; list-style: none; }
details.route > div { padding: 0 .9rem .9rem; }
.method { display: inline-block; min-width: 4.8rem; font-weight: 700; color: var(--accent); }
.says { opacity: .75; margin-left: .6rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top;
  border-top: 1px solid var(--line); padding: .25rem .5rem .25rem 0; }
input { width: 18rem; padding: .3rem; } button { padding: .35rem .9rem; cursor: pointer; }
nav a { margin-right: .9rem; } a { color: var(--accent); }
"""

_SCRIPT = """
"use strict";
const make = (tag, attributes = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};
const prose = (text = "") =>
  text.split("`").map((part, index) => (index % 2 ? make("code", { textContent: part }) : part));
const pretty = (value) => JSON.stringify(value, null, 2);
let schemas = {};
const named = (schema) => (schema.$ref || "").split("/").pop();

const kind = (schema = {}) => {
  if (schema.$ref) return make("a", { href: "#" + named(schema), textContent: named(schema) });
  const data = (schema.properties || {}).data || {};
  const event = (data.anyOf || [data]).find((each) => each.contentSchema);
  if (event) return make("span", {}, "events: ", kind(event.contentSchema));
  const either = schema.anyOf || schema.oneOf;
  if (either) {
    const parts = either.flatMap((each, index) => (index ? [" or ", kind(each)] : [kind(each)]));
    return make("span", {}, ...parts);
  }
  if (schema.enum) return make("code", { textContent: schema.enum.map((each) => JSON.stringify(each)).join(" | ") });
  if ("const" in schema) return make("code", { textContent: JSON.stringify(schema.const) });
  if (schema.type === "array") return make("span", {}, "list of ", kind(schema.items));
  const bounds = ["minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"]
    .filter((name) => name in schema).map((name) => `${name} ${schema[name]}`).join(", ");
  return make("span", { textContent: (schema.type || "anything") + (bounds ? ` (${bounds})` : "") });
};

const fields = (schema) => {
  const rows = Object.entries(schema.properties || {}).map(([name, each]) => {
    const needed = (schema.required || []).includes(name) ? " (required)" : "";
    return make("tr", {}, make("td", {}, make("code", { textContent: name }), needed), make("td", {}, kind(each)));
  });
  return make("table", {}, ...rows);
};

const types = () => Object.entries(schemas).map(([name, schema]) =>
  make("details", { className: "route", id: name }, make("summary", {}, make("code", { textContent: name })),
    make("div", {}, make("p", {}, ...prose(schema.description)), fields(schema))));

const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
};

const trying = (method, path, example) => {
  const body = make("textarea", { value: example ? pretty(example) : "", hidden: !example, spellcheck: false });
  const target = make("input", { value: path, ariaLabel: "path" });
  const answer = make("pre", { hidden: true });
  const send = async () => {
    answer.hidden = false;
    answer.textContent = "...";
    const key = document.getElementById("key").value;
    const headers = {};
    if (example) headers["content-type"] = "application/json";
    if (key) headers.authorization = `Bearer ${key}`;
    try {
      const reply = await fetch(target.value, { method, headers, body: example ? body.value : undefined });
      answer.textContent = `${reply.status} ${reply.headers.get("content-type")}\\n\\n`;
      const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) answer.textContent += part.value;
      if ((reply.headers.get("content-type") || "").startsWith("application/json")) {
        const [head, ...rest] = answer.textContent.split("\\n\\n");
        answer.textContent = `${head}\\n\\n${pretty(JSON.parse(rest.join("\\n\\n")))}`;
      }
    } catch (error) { answer.textContent += String(error); }
  };
  const button = make("button", { textContent: "Send", onclick: send });
  return make("div", {}, make("h4", { textContent: "Try it" }), make("p", {}, target, " ", button), body, answer);
};

const contents = (content = {}) => Object.entries(content).flatMap(([media, each]) => [
  make("p", {}, make("code", { textContent: media }), " ", kind(each.schema)),
  ...(each.example ? [make("pre", { textContent: pretty(each.example) })] : []),
]);

const route = (method, path, operation) => {
  const request = operation.requestBody ? operation.requestBody.content : {};
  const json = request["application/json"];
  const answers = Object.entries(operation.responses).map(([status, reply]) => make("tr", {},
    make("td", { textContent: status }),
    make("td", {}, ...prose(reply.description), ...(status < "300" ? contents(reply.content) : []))));
  const parameters = (operation.parameters || []).map((each) => make("tr", {},
    make("td", {}, make("code", { textContent: each.name })), make("td", {}, `${each.in} `, kind(each.schema))));
  return make("details", { className: "route", id: operation.operationId },
    make("summary", {}, make("span", { className: "method", textContent: method.toUpperCase() }),
      make("code", { textContent: path }), make("span", { className: "says", textContent: operation.summary || "" })),
    make("div", {}, make("p", {}, ...prose(operation.description)),
      ...(parameters.length ? [make("h4", { textContent: "Parameters" }), make("table", {}, ...parameters)] : []),
      ...(operation.requestBody ? [make("h4", { textContent: "Body" }), ...contents(request)] : []),
      make("h4", { textContent: "Answers" }), make("table", {}, ...answers),
      ...(!operation.requestBody || json ? [trying(method.toUpperCase(), path, json && (json.example || {}))] : [])));
};

const show = async () => {
  const page = document.getElementById("page");
  const reply = await fetch("openapi.json");
  const described = await reply.json();
  schemas = described.components.schemas;
  document.getElementById("version").textContent = described.info.version;
  document.getElementById("about").append(...prose(described.info.description));
  const routes = Object.entries(described.paths).flatMap(([path, item]) => Object.entries(item)
    .filter(([method]) => method !== "head").map(([method, operation]) => [method, path, operation]));
  for (const tag of described.tags) {
    const own = routes.filter(([, , operation]) => operation.tags.includes(tag.name));
    if (!own.length) continue;
    page.append(make("h2", { textContent: tag.name }), make("p", {}, ...prose(tag.description)));
    page.append(...own.map((each) => route(...each)));
  }
  page.append(make("h2", { textContent: "Types", id: "types" }), ...types());
  addEventListener("hashchange", open);
  open();
};
show().catch((error) => { document.getElementById("page").textContent = `The document could not be read: ${error}`; });
"""

PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Hearth</title>
<style>{_STYLE}</style>
<h1>Hearth <small id="version"></small></h1>
<p id="about"></p>
<nav><a href="openapi.json">openapi.json</a><a href="healthz">healthz</a><a href="health">health</a>
<a href="#types">types</a></nav>
<p><label>API key, where one is needed: <input id="key" type="password" autocomplete="off"></label></p>
<main id="page"></main>
<script>{_SCRIPT}</script>
</html>
""".encode()
