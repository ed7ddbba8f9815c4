// Signatures. WebCrypto does the arithmetic; which encodings count is decided here, because browsers differ there.
// Where it has no Ed25519 (browsers before 2025), the equation is computed below: only public values, no secret to leak.

const ED_P = (1n << 255n) - 19n;
const ED_L = (1n << 252n) + 27742317777372353535851937790883648493n;
const mod = (a, p) => { const r = a % p; return r < 0n ? r + p : r; };

function power(base, exponent, p) {
  let result = 1n;
  for (base = mod(base, p); exponent > 0n; exponent >>= 1n) {
    if (exponent & 1n) result = (result * base) % p;
    base = (base * base) % p;
  }
  return result;
}

const ED_D = mod(-121665n * power(121666n, ED_P - 2n, ED_P), ED_P);
const ED_I = power(2n, (ED_P - 1n) / 4n, ED_P);

function littleEndian(bytes) {
  return unsigned(Uint8Array.from(bytes).reverse());
}

// A point of edwards25519 from its one encoding; null for everything else.
function edPoint(bytes) {
  const number = littleEndian(bytes);
  const sign = number >> 255n;
  const y = number & ((1n << 255n) - 1n);
  if (y >= ED_P) return null;
  const u = mod(y * y - 1n, ED_P), v = mod(ED_D * y * y + 1n, ED_P);
  let x = mod(u * v ** 3n * power(u * v ** 7n, (ED_P - 5n) / 8n, ED_P), ED_P);
  if (mod(v * x * x, ED_P) !== u) x = (x * ED_I) % ED_P;
  if (mod(v * x * x, ED_P) !== u || (x === 0n && sign === 1n)) return null;
  if ((x & 1n) !== sign) x = ED_P - x;
  return { x, y, z: 1n, t: (x * y) % ED_P };
}

function edAdd(p, q) {
  const a = (p.y - p.x) * (q.y - q.x), b = (p.y + p.x) * (q.y + q.x);
  const c = mod(2n * p.t * q.t, ED_P) * ED_D, d = 2n * p.z * q.z;
  const e = mod(b - a, ED_P), f = mod(d - c, ED_P), g = mod(d + c, ED_P), h = mod(b + a, ED_P);
  return { x: (e * f) % ED_P, y: (g * h) % ED_P, z: (f * g) % ED_P, t: (e * h) % ED_P };
}

const ED_ZERO = { x: 0n, y: 1n, z: 1n, t: 0n };
const isEdZero = (p) => p.x === 0n && p.y === p.z;
const isSmall = (p) => { for (let n = 0; n < 3; n++) p = edAdd(p, p); return isEdZero(p); };
const ED_BASE = edPoint(fromHex("58" + "66".repeat(31), 32));

const edKeys = new Map();

// A public key: canonical, on the curve, not of small order.
function edKey(bytes) {
  if (bytes.length !== 32) return null;
  const name = hex(bytes);
  if (!edKeys.has(name)) {
    const point = edPoint(bytes);
    if (edKeys.size > 4096) edKeys.clear();
    edKeys.set(name, point && !isSmall(point) ? point : null);
  }
  return edKeys.get(name);
}

let webEd25519 = null;

// Whether this browser verifies Ed25519: asked once, with a key, a signature of RFC 8032 (7.1, test 1), and a damaged one.
async function hasWebEd25519() {
  if (webEd25519 === null) {
    try {
      const key = fromHex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", 32);
      const good = fromHex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b", 64);
      const imported = await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
      const says = (signature) => crypto.subtle.verify("Ed25519", imported, signature, new Uint8Array());
      webEd25519 = (await says(good)) && !(await says(Uint8Array.of(0, ...good.slice(1))));
    } catch {
      webEd25519 = false;
    }
  }
  return webEd25519;
}

// RFC 8032, strict: canonical S, canonical R and A, neither of small order, and the equation without cofactor.
async function edVerify(key, message, signature, own = false) {
  const a = edKey(key);
  if (a === null || signature.length !== 64) return false;
  const s = littleEndian(signature.subarray(32));
  const r = edPoint(signature.subarray(0, 32));
  if (s >= ED_L || r === null || isSmall(r)) return false;
  if (!own && (await hasWebEd25519())) {
    const imported = await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
    return crypto.subtle.verify("Ed25519", imported, signature, message);
  }
  const k = littleEndian(await webHash("SHA-512", concat(signature.subarray(0, 32), key, message))) % ED_L;
  // s B - k A - R = 0
  const minusA = { x: ED_P - a.x, y: a.y, z: 1n, t: ED_P - a.t };
  const both = edAdd(ED_BASE, minusA);
  let sum = ED_ZERO;
  for (let bit = 252n; bit >= 0n; bit--) {
    sum = edAdd(sum, sum);
    const which = Number((s >> bit) & 1n) + 2 * Number((k >> bit) & 1n);
    if (which > 0) sum = edAdd(sum, [ED_BASE, minusA, both][which - 1]);
  }
  return isEdZero(edAdd(sum, { x: ED_P - r.x, y: r.y, z: 1n, t: ED_P - r.t }));
}

const CURVES = {
  "P-256": {
    bytes: 32,
    p: (1n << 256n) - (1n << 224n) + (1n << 192n) + (1n << 96n) - 1n,
    b: 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn,
    n: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  },
  "P-384": {
    bytes: 48,
    p: (1n << 384n) - (1n << 128n) - (1n << 96n) + (1n << 32n) - 1n,
    b: 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aefn,
    n: 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n,
  },
};

// 0x04 || X || Y, on the curve.
function isCurvePoint(curve, bytes) {
  const { bytes: size, p, b } = CURVES[curve];
  if (bytes.length !== 1 + 2 * size || bytes[0] !== 4) return false;
  const x = unsigned(bytes.subarray(1, 1 + size)), y = unsigned(bytes.subarray(1 + size));
  return x < p && y < p && mod(y * y - (x ** 3n - 3n * x + b), p) === 0n;
}

// r || s, each in 1..n-1; high s is accepted.
async function ecVerify(curve, key, hash, message, signature) {
  const { bytes: size, n } = CURVES[curve];
  if (!isCurvePoint(curve, key) || signature.length !== 2 * size) return false;
  for (const number of [signature.subarray(0, size), signature.subarray(size)].map(unsigned)) {
    if (number === 0n || number >= n) return false;
  }
  const imported = await crypto.subtle.importKey("raw", key, { name: "ECDSA", namedCurve: curve }, false, ["verify"]);
  return crypto.subtle.verify({ name: "ECDSA", hash }, imported, signature, message);
}

// RSA of 2048 to 8192 bits; PSS with a salt as long as the hash.
async function rsaVerify(modulus, exponent, padding, hash, message, signature) {
  const n = unsigned(modulus), e = unsigned(exponent);
  const bits = n.toString(2).length;
  const fine = bits > 2040 && bits <= 8192 && (n & 1n) === 1n && e >= 3n && (e & 1n) === 1n && e < 1n << 33n;
  const length = Math.ceil(bits / 8);
  if (!fine || signature.length !== length || unsigned(signature) >= n) return false;
  const base64Url = (bytes) => toBase64(bytes).replace(/=/g, "").replace(/\+/g, "-").replace(/\//g, "_");
  const short = (bytes) => bytes.subarray(bytes.findIndex((byte) => byte !== 0));
  const algorithm = { name: padding === "pss" ? "RSA-PSS" : "RSASSA-PKCS1-v1_5", hash };
  const jwk = { kty: "RSA", n: base64Url(short(modulus)), e: base64Url(short(exponent)) };
  const key = await crypto.subtle.importKey("jwk", jwk, algorithm, false, ["verify"]);
  const saltLength = { "SHA-256": 32, "SHA-384": 48, "SHA-512": 64 }[hash];
  return crypto.subtle.verify({ ...algorithm, saltLength }, key, signature, message);
}
