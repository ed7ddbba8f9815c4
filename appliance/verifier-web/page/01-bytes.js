// Bytes and texts, each in its one spelling. Whatever is not throws `Refused`, which ends the check it happens in.

class Refused extends Error {}
// Nothing is known to be wrong; a newer verifier is needed.
class Newer extends Error {}

function demand(holds, why) {
  if (!holds) throw new Refused(why);
}

const encoder = new TextEncoder();

function utf8(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Refused("not UTF-8");
  }
}

function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function same(a, b) {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

// The order of bytes, as for names in ascending order.
function compare(a, b) {
  for (let at = 0; at < Math.min(a.length, b.length); at++) if (a[at] !== b[at]) return a[at] - b[at];
  return a.length - b.length;
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text, length) {
  demand(typeof text === "string" && text.length === 2 * length && /^[0-9a-f]*$/.test(text), "not lower-case hex of that length");
  return Uint8Array.from({ length }, (_, at) => parseInt(text.slice(2 * at, 2 * at + 2), 16));
}

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_VALUE = new Int8Array(128).fill(-1);
for (let at = 0; at < 64; at++) BASE64_VALUE[BASE64.charCodeAt(at)] = at;

// RFC 4648 section 4: padded, without line breaks, unused bits zero.
function fromBase64(text) {
  demand(typeof text === "string", "not a string of base64");
  demand(text.length % 4 === 0, "base64 without its padding");
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  let bits = 0, value = 0, out = 0;
  for (let at = 0; at < text.length - padding; at++) {
    const code = text.charCodeAt(at);
    const digit = code < 128 ? BASE64_VALUE[code] : -1;
    demand(digit >= 0, "a character that is none of base64");
    value = ((value << 6) | digit) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[out++] = (value >> bits) & 0xff;
    }
  }
  demand((value & ((1 << bits) - 1)) === 0, "base64 with unused bits that are not zero");
  return bytes;
}

function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 3) {
    const [a, b, c] = [bytes[at], bytes[at + 1], bytes[at + 2]];
    text += BASE64[a >> 2] + BASE64[((a & 3) << 4) | ((b ?? 0) >> 4)];
    text += b === undefined ? "=" : BASE64[((b & 15) << 2) | ((c ?? 0) >> 6)];
    text += c === undefined ? "=" : BASE64[c & 63];
  }
  return text;
}

function u16(number) {
  return Uint8Array.of(number >> 8, number & 0xff);
}

function u64(number) {
  return fromHex(number.toString(16).padStart(16, "0"), 8);
}

// Big-endian bytes as a number of any size.
function unsigned(bytes) {
  return bytes.length === 0 ? 0n : BigInt("0x" + hex(bytes));
}

// A message under its label: what is signed or hashed for one purpose only.
function labelled(label, ...parts) {
  return concat(encoder.encode(label), Uint8Array.of(0), ...parts);
}

// Reads big-endian fields one after another; nothing may be left.
class Fields {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  take(length) {
    demand(this.at + length <= this.bytes.length, "cut short");
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
  number(length) {
    return unsigned(this.take(length));
  }
  u16() {
    return Number(this.number(2));
  }
  sized() {
    return this.take(this.u16());
  }
  end() {
    demand(this.at === this.bytes.length, "bytes after the end");
  }
}
