// Strict DER: definite lengths in their shortest form, one-byte tags, nothing after the end. For the structures of our
// own there are types, which read a value or refuse it; what they take, encoded again, is the same bytes.

const [BOOLEAN, INTEGER, BITS, OCTETS, NULL, OID, ENUMERATED, UTF8, SEQUENCE, SET] =
  [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0a, 0x0c, 0x30, 0x31];
const MAX63 = (1n << 63n) - 1n;

class Der {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  get empty() {
    return this.at === this.bytes.length;
  }
  // The tag of what comes next; -1 at the end.
  get tag() {
    return this.empty ? -1 : this.bytes[this.at];
  }
  any() {
    const start = this.at;
    const byte = () => {
      demand(this.at < this.bytes.length, "DER that is cut short");
      return this.bytes[this.at++];
    };
    const tag = byte();
    demand((tag & 0x1f) !== 0x1f, "a DER tag of more than one byte");
    let length = byte();
    if (length >= 0x80) {
      const digits = length & 0x7f;
      demand(digits >= 1 && digits <= 4, "a DER length that is indefinite or too long");
      length = 0;
      for (let n = 0; n < digits; n++) length = length * 256 + byte();
      demand(length >= 0x80 && length >= 2 ** (8 * (digits - 1)), "a DER length that is not the shortest");
    }
    demand(this.at + length <= this.bytes.length, "DER that is cut short");
    const content = this.bytes.subarray(this.at, this.at + length);
    this.at += length;
    return { tag, content, raw: this.bytes.subarray(start, this.at) };
  }
  take(tag) {
    const element = this.any();
    demand(element.tag === tag, "a DER element of another kind");
    const { content } = element;
    if (tag === BOOLEAN) demand(content.length === 1 && (content[0] === 0 || content[0] === 0xff), "a BOOLEAN of another value");
    if (tag === INTEGER) demand(isShortestInteger(content), "an INTEGER that is not the shortest");
    if (tag === NULL) demand(content.length === 0, "a NULL with content");
    if (tag === OID) demand(isOid(content), "a malformed OBJECT IDENTIFIER");
    return element;
  }
  takeIf(tag) {
    return this.tag === tag ? this.take(tag) : null;
  }
  enter(tag) {
    return new Der(this.take(tag).content);
  }
  // Everything that is left, at most so many.
  all(most) {
    const found = [];
    while (!this.empty) {
      demand(found.length < most, "more elements than are read");
      found.push(this.any());
    }
    return found;
  }
  end() {
    demand(this.empty, "bytes after the end of a DER structure");
  }
  // The inside of bytes that are exactly one element.
  static whole(bytes, tag) {
    const outer = new Der(bytes);
    const inside = outer.enter(tag);
    outer.end();
    return inside;
  }
}

function isShortestInteger(content) {
  if (content.length === 0) return false;
  if (content.length === 1) return true;
  return !(content[0] === 0 && content[1] < 0x80) && !(content[0] === 0xff && content[1] >= 0x80);
}

function isOid(content) {
  if (content.length === 0 || content[content.length - 1] >= 0x80) return false;
  return content.every((byte, at) => byte !== 0x80 || (at > 0 && content[at - 1] >= 0x80));
}

function natural(content) {
  demand(isShortestInteger(content) && content[0] < 0x80, "a negative INTEGER");
  return unsigned(content);
}

// An element of this tag around parts.
function derElement(tag, ...parts) {
  const content = concat(...parts);
  const { length } = content;
  if (length < 0x80) return concat(Uint8Array.of(tag, length), content);
  const digits = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256);
  return concat(Uint8Array.of(tag, 0x80 | digits.length, ...digits), content);
}

function derNatural(number) {
  const bytes = fromHex(number.toString(16).padStart(number.toString(16).length + (number.toString(16).length % 2), "0"),
    Math.ceil(number.toString(16).length / 2));
  return derElement(INTEGER, bytes[0] >= 0x80 ? concat(Uint8Array.of(0), bytes) : bytes);
}

// ---- types of our own structures: { tags, read(element) } ----

const integer = (max = MAX63, min = 0n) => ({
  tags: [INTEGER],
  read: ({ content }) => {
    const number = natural(content);
    demand(number >= min && number <= max, "a number that is out of range");
    return number;
  },
});
const boolean = {
  tags: [BOOLEAN],
  read: ({ content }) => {
    demand(content.length === 1 && (content[0] === 0 || content[0] === 0xff), "a BOOLEAN of another value");
    return content[0] === 0xff;
  },
};
const octets = (min = 0, max = Infinity) => ({
  tags: [OCTETS],
  read: ({ content }) => {
    demand(content.length >= min && content.length <= max, "an OCTET STRING of another length");
    return content;
  },
});
const bytes32 = octets(32, 32);
const text = (min = 0, max = Infinity) => ({
  tags: [UTF8],
  read: ({ content }) => {
    demand(content.length >= min && content.length <= max, "a text of another length");
    return utf8(content);
  },
});
const enumerated = (...names) => ({
  tags: [ENUMERATED],
  read: ({ content }) => {
    const number = natural(content);
    demand(number < BigInt(names.length), "an unknown value of an ENUMERATED");
    return names[Number(number)];
  },
});
const listOf = (type, max = Infinity, min = 0) => ({
  tags: [SEQUENCE],
  read: ({ content }) => {
    const inside = new Der(content);
    const found = [];
    while (!inside.empty) found.push(readType(inside, type));
    demand(found.length >= min && found.length <= max, "a list of another length");
    return found;
  },
});
// IMPLICIT [number]: the inner type under another tag.
const tagged = (number, type) => ({
  tags: [0x80 | number | (type.tags[0] & 0x20)],
  read: (element) => type.read({ ...element, tag: type.tags[0] }),
});
const optional = (number, type) => ({ ...tagged(number, type), optional: true });
// CHOICE: the names of the alternatives, each under a tag of its own.
const choice = (alternatives) => {
  const types = Object.entries(alternatives).map(([name, type], number) => ({ name, type: tagged(number, type) }));
  return {
    tags: types.map(({ type }) => type.tags[0]),
    read: (element) => {
      const { name, type } = types.find(({ type }) => type.tags[0] === element.tag);
      return { [name]: type.read(element) };
    },
  };
};
// Fields in order; each value is kept with `raw`, the bytes it came in.
const sequence = (fields, check = () => {}) => ({
  tags: [SEQUENCE],
  read: ({ content, raw }) => {
    const inside = new Der(content);
    const value = { raw };
    for (const [name, type] of Object.entries(fields)) {
      if (type.optional && !type.tags.includes(inside.tag)) continue;
      value[name] = readType(inside, type);
    }
    inside.end();
    check(value);
    return value;
  },
});

function readType(der, type) {
  demand(type.tags.includes(der.tag), "a DER element of another kind");
  return type.read(der.any());
}

function decode(type, bytes) {
  const der = new Der(bytes);
  const value = readType(der, type);
  der.end();
  return value;
}
