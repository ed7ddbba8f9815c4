// The page's own script under Node: reads one question a line, answers with one report a line.
//
// A question is {"trust", "seal", "document"}, base64 each; without a document nothing is compared. An answer is what the
// page would say: {"verdict": "trust-refused"}, or the report. A question {"stamp", "imprint", "roots", "policies"} is
// about a time-stamp reply alone. A fault of the script itself is {"crash"}. With `without-ed25519` as second argument
// it is the script of an older browser, which has to do that itself.
"use strict";
const fs = require("node:fs");
const vm = require("node:vm");
globalThis.crypto ??= require("node:crypto").webcrypto;

const page = fs.readFileSync(process.argv[2], "utf8");
const script = /<script id="verifier">([^]*?)<\/script>/.exec(page)[1];
vm.runInThisContext(`${script}\nglobalThis.BullaVerifier = BullaVerifier;`, { filename: "verifier.js" });
const { openTrust, verifySeal, digestOf, reportText, verifyStamp, Certificate, Refused, NotJudged, fromHex } = globalThis.BullaVerifier;

if (process.argv[3] === "without-ed25519") {
  const importKey = crypto.subtle.importKey.bind(crypto.subtle);
  crypto.subtle.importKey = (format, key, algorithm, ...rest) => algorithm === "Ed25519"
    ? Promise.reject(new DOMException("Unrecognized name.", "NotSupportedError"))
    : importKey(format, key, algorithm, ...rest);
}

const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
let remembered = { text: null, trust: null };

async function answer({ trust, seal, document }) {
  if (remembered.text !== trust) remembered = { text: trust, trust: await openTrust(bytes(trust)) };
  if (!remembered.trust.trust) return JSON.stringify({ verdict: "trust-refused", why: remembered.trust.refused });
  const digest = document === undefined ? null : (algorithm) => digestOf(algorithm, [bytes(document)]);
  return reportText(await verifySeal(bytes(seal), remembered.trust.trust, digest)).replace(/\n */g, " ");
}

async function judgeStamp({ stamp, imprint, roots, policies }) {
  try {
    const operator = { roots: roots.map((root) => new Certificate(bytes(root))), policies };
    const { earliest, latest } = await verifyStamp(bytes(stamp), fromHex(imprint, 32), operator);
    return JSON.stringify({ stamp: "holds", earliest: `${earliest}`, latest: `${latest}` });
  } catch (error) {
    if (error instanceof NotJudged) return JSON.stringify({ stamp: error.message });
    if (error instanceof Refused) return JSON.stringify({ stamp: "refused", why: error.message });
    throw error;
  }
}

(async () => {
  for await (const line of require("node:readline").createInterface({ input: process.stdin })) {
    let said;
    try {
      const question = JSON.parse(line);
      said = await (question.stamp === undefined ? answer(question) : judgeStamp(question));
    } catch (error) {
      said = JSON.stringify({ crash: error.stack });
    }
    process.stdout.write(`${said}\n`);
  }
})();
