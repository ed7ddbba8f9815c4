// What leaves the verifier: the members of `bulla verify --json` that are the same in every language.

// Judges by a trust file: { trust } when that is usable, { refused, newer } when nothing can be judged by it.
async function openTrust(bytes) {
  try {
    return { trust: await parseTrust(bytes) };
  } catch (error) {
    if (error instanceof Newer) return { refused: error.message, newer: true };
    if (error instanceof Refused) return { refused: error.message, newer: false };
    throw error;
  }
}

// The report as JSON. Numbers are written in full: 2^63-1 is more than a double holds.
function reportText(report) {
  const { interval, trust } = report;
  const members = {
    verdict: report.verdict,
    facts: report.facts,
    interval: interval && {
      notBeforeMillis: interval.after,
      notAfterMillis: interval.before,
      localMillis: interval.local.unixMillis,
      localUncertaintyMillis: interval.local.uncertaintyMillis ?? null,
    },
    trustIssuedMillis: trust.issuedMillis,
    trustRosterVersion: trust.roster,
    checks: report.checks.map(({ check, outcome, why }) => ({ check, outcome, detail: why })),
    trustFingerprint: trust.fingerprint,
    opened: report.opened.map(({ name, value, assurance }) => ({ name, value, assurance })),
  };
  const marked = (_, value) => (typeof value === "bigint" ? `\u0000${value}` : value);
  return JSON.stringify(members, marked, 2).replace(/"\\u0000([0-9]+)"/g, "$1");
}
