// Hashes. SHA-256 is computed here, at once and in pieces: a tree takes hundreds of small ones, and a document need not
// fit into memory. SHA3-256 is not in WebCrypto; SHA-1, 384 and 512 come from there.

const SHA256_K = new Uint32Array(64);
const SHA256_START = new Uint32Array(8);
{
  // The first 32 bits of the fractions of the cube and square roots of the first primes.
  const isPrime = (n) => { for (let d = 2; d * d <= n; d++) if (n % d === 0) return false; return true; };
  const root = (n, k) => { // floor(n^(1/k) * 2^32) mod 2^32, exactly
    const target = BigInt(n) << BigInt(32 * k);
    let low = 0n, high = 1n << 40n;
    while (low < high) {
      const middle = (low + high + 1n) >> 1n;
      if (middle ** BigInt(k) <= target) low = middle; else high = middle - 1n;
    }
    return Number(low & 0xffffffffn);
  };
  for (let n = 2, at = 0; at < 64; n++) {
    if (!isPrime(n)) continue;
    if (at < 8) SHA256_START[at] = root(n, 2);
    SHA256_K[at++] = root(n, 3);
  }
}

class Sha256 {
  constructor() {
    this.state = SHA256_START.slice();
    this.block = new Uint8Array(64);
    this.filled = 0;
    this.length = 0;
    this.words = new Uint32Array(64);
  }
  compress(bytes, at) {
    const w = this.words;
    for (let i = 0; i < 16; i++, at += 4) {
      w[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    }
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15], y = w[i - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = this.state;
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + SHA256_K[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    const s = this.state;
    s[0] += a; s[1] += b; s[2] += c; s[3] += d; s[4] += e; s[5] += f; s[6] += g; s[7] += h;
  }
  update(bytes) {
    this.length += bytes.length;
    let at = 0;
    if (this.filled > 0) {
      at = Math.min(64 - this.filled, bytes.length);
      this.block.set(bytes.subarray(0, at), this.filled);
      this.filled += at;
      if (this.filled < 64) return this;
      this.compress(this.block, 0);
      this.filled = 0;
    }
    for (; at + 64 <= bytes.length; at += 64) this.compress(bytes, at);
    this.block.set(bytes.subarray(at), 0);
    this.filled = bytes.length - at;
    return this;
  }
  finish() {
    const bits = BigInt(this.length) * 8n;
    const zeros = (119 - this.filled) % 64;
    this.update(concat(Uint8Array.of(0x80), new Uint8Array(zeros), u64(bits)));
    return Uint8Array.from({ length: 32 }, (_, at) => this.state[at >> 2] >>> (24 - 8 * (at & 3)));
  }
}

function sha256(...parts) {
  const hash = new Sha256();
  for (const part of parts) hash.update(part);
  return hash.finish();
}

// FIPS 202, with lanes as pairs of 32-bit words (low, high).
class Sha3 {
  constructor() {
    this.state = new Uint32Array(50);
    this.at = 0;
  }
  absorb(byte) {
    this.state[this.at >> 2] ^= byte << (8 * (this.at & 3));
    if (++this.at === 136) {
      keccak(this.state);
      this.at = 0;
    }
  }
  update(bytes) {
    for (const byte of bytes) this.absorb(byte);
    return this;
  }
  finish() {
    this.state[this.at >> 2] ^= 6 << (8 * (this.at & 3));
    this.state[33] ^= 0x80000000;
    keccak(this.state);
    return Uint8Array.from({ length: 32 }, (_, at) => this.state[at >> 2] >>> (8 * (at & 3)));
  }
}

const KECCAK_ROUNDS = [];
{
  let lfsr = 1;
  for (let round = 0; round < 24; round++) {
    const constant = [0, 0];
    for (let j = 0; j < 7; j++) {
      const bit = (1 << j) - 1;
      if (lfsr & 1) constant[bit >> 5] |= 1 << (bit & 31);
      lfsr = lfsr & 0x80 ? ((lfsr << 1) ^ 0x171) & 0xff : lfsr << 1;
    }
    KECCAK_ROUNDS.push(constant);
  }
}

function keccak(state) {
  const column = new Uint32Array(10);
  const rotated = new Uint32Array(50);
  const rotate = (low, high, by) => {
    if (by >= 32) [low, high, by] = [high, low, by - 32];
    return by === 0 ? [low, high] : [(low << by) | (high >>> (32 - by)), (high << by) | (low >>> (32 - by))];
  };
  for (const constant of KECCAK_ROUNDS) {
    for (let x = 0; x < 10; x++) {
      column[x] = state[x] ^ state[x + 10] ^ state[x + 20] ^ state[x + 30] ^ state[x + 40];
    }
    for (let x = 0; x < 5; x++) {
      const before = 2 * ((x + 4) % 5), after = 2 * ((x + 1) % 5);
      const [low, high] = rotate(column[after], column[after + 1], 1);
      for (let y = 0; y < 5; y++) {
        state[2 * (x + 5 * y)] ^= column[before] ^ low;
        state[2 * (x + 5 * y) + 1] ^= column[before + 1] ^ high;
      }
    }
    rotated[0] = state[0];
    rotated[1] = state[1];
    for (let t = 0, x = 1, y = 0; t < 24; t++) {
      const from = 2 * (x + 5 * y);
      const [low, high] = rotate(state[from], state[from + 1], (((t + 1) * (t + 2)) / 2) % 64);
      [x, y] = [y, (2 * x + 3 * y) % 5];
      rotated[2 * (x + 5 * y)] = low;
      rotated[2 * (x + 5 * y) + 1] = high;
    }
    for (let y = 0; y < 50; y += 10) {
      for (let x = 0; x < 10; x++) {
        const half = x & 1, lane = x >> 1;
        const next = y + 2 * ((lane + 1) % 5) + half, second = y + 2 * ((lane + 2) % 5) + half;
        state[y + x] = rotated[y + x] ^ (~rotated[next] & rotated[second]);
      }
    }
    state[0] ^= constant[0];
    state[1] ^= constant[1];
  }
}

async function webHash(name, bytes) {
  return new Uint8Array(await crypto.subtle.digest(name, bytes));
}
