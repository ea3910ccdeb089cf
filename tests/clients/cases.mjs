// What every JavaScript client's script begins with: where the server is, and the cases it runs, told one line each.

export const SERVER = process.env.HEARTH_URL;
export const URL_V1 = `${SERVER}/v1`;
export const KEY = process.env.HEARTH_KEY;
/** What the model `automaton` always says. */
export const TEXT = process.env.HEARTH_TEXT;

export const HELLO = [{ role: "user", content: "Hello" }];
/** More than any model of the recipe reads. */
export const LONG = "word ".repeat(80_000);
/** Bounded, because the model `random` ends nothing by itself. */
export const TRIP = {
  type: "object",
  properties: { city: { type: "string", maxLength: 8 }, days: { type: "integer", minimum: 0, maximum: 99 } },
  required: ["city", "days"],
  additionalProperties: false,
};

const PATIENCE_MS = 20_000;

/** Runs every case, the others too where one fails: a line {case, ok, detail} each. A case fails by throwing. */
export async function run(cases) {
  for (const [name, check] of Object.entries(cases)) {
    let detail = "";
    try {
      await check();
    } catch (fault) {
      detail = fault?.stack ?? String(fault);
    }
    console.log(JSON.stringify({ case: name, ok: detail === "", detail }));
  }
}

/** What the call throws. Throws itself where nothing is thrown. */
export async function refused(call) {
  let answer;
  try {
    answer = await call();
  } catch (fault) {
    return fault;
  }
  throw new Error(`not refused: ${JSON.stringify(answer)?.slice(0, 400)}`);
}

export async function get(path) {
  const reply = await fetch(SERVER + path, { headers: { authorization: `Bearer ${KEY}` } });
  return reply.json();
}

/** Throws unless the model soon has nothing to do. */
export async function freed(model) {
  const until = Date.now() + PATIENCE_MS;
  while ((await get("/health")).models[model].in_flight) {
    if (Date.now() > until) throw new Error(`${model} is still busy`);
    await new Promise((resolve) => setTimeout(resolve, 50)); // another process' state, which has nothing to wait on
  }
}
