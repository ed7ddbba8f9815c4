// Strict JSON (RFC 8259): UTF-8, no member name twice in one object, at most 127 levels, no number beyond a double.
// Objects become Maps; numbers keep their spelling, because 2^63-1 is more than a double holds.

class JsonNumber {
  constructor(spelling) {
    this.spelling = spelling;
  }
}

function parseJson(bytes) {
  const input = utf8(bytes);
  let at = 0;
  const fail = (why) => { throw new Refused(`not JSON: ${why}, at character ${at + 1}`); };
  const space = () => { while (at < input.length && " \t\n\r".includes(input[at])) at++; };

  const string = () => {
    let out = "";
    for (at++; ;) {
      const code = input.charCodeAt(at);
      if (at >= input.length || code < 0x20) fail("a string that does not end");
      if (code === 0x22) { at++; return out; }
      if (code !== 0x5c) { out += input[at++]; continue; }
      const letter = input[at + 1];
      at += 2;
      const simple = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" }[letter];
      if (simple !== undefined) { out += simple; continue; }
      if (letter !== "u") fail("an unknown escape");
      const unit = () => {
        const digits = input.slice(at, at + 4);
        if (!/^[0-9a-fA-F]{4}$/.test(digits)) fail("an escape without four digits");
        at += 4;
        return parseInt(digits, 16);
      };
      const first = unit();
      if (first >= 0xdc00 && first <= 0xdfff) fail("half a surrogate pair");
      if (first < 0xd800 || first > 0xdbff) { out += String.fromCharCode(first); continue; }
      if (input[at] !== "\\" || input[at + 1] !== "u") fail("half a surrogate pair");
      at += 2;
      const second = unit();
      if (second < 0xdc00 || second > 0xdfff) fail("half a surrogate pair");
      out += String.fromCharCode(first, second);
    }
  };

  const number = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
  const value = (depth) => {
    space();
    if (at >= input.length) fail("the end, where a value should be");
    const letter = input[at];
    if (letter === '"') return string();
    if (letter === "{" || letter === "[") {
      if (depth === 127) fail("nested too deeply");
      return letter === "{" ? object(depth + 1) : array(depth + 1);
    }
    for (const [word, meaning] of [["true", true], ["false", false], ["null", null]]) {
      if (input.startsWith(word, at)) { at += word.length; return meaning; }
    }
    number.lastIndex = at;
    const found = number.exec(input);
    if (found === null) fail("no value");
    if (!Number.isFinite(Number(found[0]))) fail("a number beyond the range of a double");
    at += found[0].length;
    return new JsonNumber(found[0]);
  };
  const array = (depth) => {
    const found = [];
    at++;
    space();
    if (input[at] === "]") { at++; return found; }
    for (;;) {
      found.push(value(depth));
      space();
      const next = input[at++];
      if (next === "]") return found;
      if (next !== ",") { at--; fail("neither a comma nor the end of an array"); }
    }
  };
  const object = (depth) => {
    const found = new Map();
    at++;
    space();
    if (input[at] === "}") { at++; return found; }
    for (;;) {
      space();
      if (input[at] !== '"') fail("a member without a name");
      const name = string();
      if (found.has(name)) fail(`the member ${JSON.stringify(name)} twice`);
      space();
      if (input[at] !== ":") fail("a name without a colon");
      at++;
      found.set(name, value(depth));
      space();
      const next = input[at++];
      if (next === "}") return found;
      if (next !== ",") { at--; fail("neither a comma nor the end of an object"); }
    }
  };

  const whole = value(0);
  space();
  if (at < input.length) fail("text after the end");
  return whole;
}

// ---- shapes ----

function jsonObject(value, what, known) {
  demand(value instanceof Map, `${what} is no object`);
  if (known) for (const name of value.keys()) demand(known.includes(name), `${what} has the unknown member ${JSON.stringify(name)}`);
  return value;
}
function jsonArray(value, what, max = Infinity) {
  demand(Array.isArray(value), `${what} is no array`);
  demand(value.length <= max, `${what} has more than ${max} items`);
  return value;
}
function jsonString(value, what) {
  demand(typeof value === "string", `${what} is no string`);
  return value;
}
function jsonInteger(value, what, max = MAX63) {
  demand(value instanceof JsonNumber && /^(0|[1-9][0-9]*)$/.test(value.spelling), `${what} is no whole number`);
  const number = BigInt(value.spelling);
  demand(number <= max, `${what} is out of range`);
  return number;
}
function jsonBoolean(value, what) {
  demand(typeof value === "boolean", `${what} is neither true nor false`);
  return value;
}
