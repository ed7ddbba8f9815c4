// The box itself: self-check, lock, drill, key epoch, and who it is.

import { get, may, postJson, post } from "./api.js";
import { button, card, complaint, el, field, fill, icon, pairs, say } from "./dom.js";
import { state } from "./mode.js";
import { bytes, moment, number, span, t } from "./words.js";

/** A form that asks for a reason and does something with it. */
function withReason(id, words, act, again, kind = "button") {
  const reason = el("input", { id: `${id}-reason`, required: true, maxlength: "200", autocomplete: "off" });
  const wrong = el("div", null);
  const submit = el("button", { type: "submit", class: kind }, words);
  const onsubmit = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    try {
      await act(reason.value.trim());
      say(t("done"));
      again();
    } catch (error) {
      fill(wrong, complaint(error.message));
      submit.disabled = false;
    }
  };
  return el("form", { onsubmit, id }, wrong, field(t("reason"), reason, t("reasonLogged")), el("p", { class: "actions" }, submit));
}

function selfTest(status, again) {
  const test = status.selfTest;
  const wrong = el("div", null);
  const run = async (event) => {
    event.target.disabled = true;
    fill(wrong, el("p", { role: "status" }, t("testing")));
    try {
      await post("/v1/self-tests", null);
      again();
    } catch (error) {
      fill(wrong, complaint(error.message));
      event.target.disabled = false;
    }
  };
  return card(t("selfTest"), el("p", { class: "soft" }, t("selfTestLead")),
    test === null ? el("p", null, t("notYet"))
      : el("div", { class: `fact ${test.passed ? "yes" : "bad"}`, id: "self-test" }, icon(test.passed ? "ok" : "bad"),
          el("div", null, el("p", { class: "fact-name" }, test.passed ? t("passed") : t("failed")),
            el("p", null, moment(test.atMillis), test.failure && `: ${test.failure}`))),
    wrong, may("self-test") && el("p", { class: "actions" }, button(t("testNow"), run)));
}

function scrub(status) {
  const facts = status.scrub;
  return card(t("scrub"), el("p", { class: "soft" }, t("scrubLead")),
    el("div", { class: `fact ${facts.damaged > 0 ? "bad" : facts.endedMillis ? "yes" : "wait"}` },
      icon(facts.damaged > 0 ? "bad" : facts.endedMillis ? "ok" : "wait"),
      el("div", null,
        el("p", { class: "fact-name" }, facts.damaged > 0 ? t("damaged", number(facts.damaged)) : facts.endedMillis ? t("undamaged") : t("notYet")),
        el("p", null, facts.endedMillis ? t("scrubbed", moment(facts.endedMillis), bytes(facts.bytes)) : ""),
        facts.findings.map((one) => el("p", null, one)))));
}

/** Shows it. */
export async function box(place) {
  const status = await get("/v1/status");
  const again = () => box(place);
  const locked = status.condition.state === "locked";
  const ca = await fetch("/v1/ca", { credentials: "omit", cache: "no-store" });
  const fingerprint = ca.headers.get("Bulla-CA-Fingerprint");
  const drill = status.outage?.drill === true;
  const wrong = el("div", null);
  const drilling = async () => {
    try {
      await (drill ? post("/v1/drills/stop", null) : postJson("/v1/drills", { kind: "wan-down", seconds: 600 }));
      again();
    } catch (error) {
      fill(wrong, complaint(error.message));
    }
  };
  fill(place, el("h1", null, t("navBox")), state(status),
    el("div", { class: "columns" },
      el("div", null, selfTest(status, again), scrub(status)),
      el("div", null,
        card(t("whoIsIt"), pairs(
          [t("log"), el("code", { class: "digest" }, status.origin)],
          [t("keysIn"), status.hardware === "tpm" ? t("inTpm") : t("inFiles")],
          [t("epoch"), number(status.epoch)],
          [t("attestation"), status.attestationTrouble ?? t("noTrouble")],
          [t("runningFor"), span(status.uptimeSeconds)],
          [t("program"), `bulla-box ${status.version}`],
          [t("caFingerprint"), el("code", { class: "digest" }, fingerprint ?? "\u2013")]),
          el("p", null, el("a", { href: "/v1/ca.pem", download: "bulla-ca.pem" }, t("caFile")))),
        status.ingest && card(t("folders"), el("ul", { class: "plain-list" }, status.ingest.map((one) =>
          el("li", null, el("strong", null, one.client), " ", t("folderCounts", number(one.sealed), number(one.waiting), number(one.rejected)), one.trouble && el("p", null, one.trouble))))),
        status.medium && card(t("medium"), pairs([t("state"), status.medium.state], [t("trouble"), status.medium.trouble])))),
    may("lock") && card(t("acts"), wrong,
      el("details", { open: locked }, el("summary", null, locked ? t("unlock") : t("lock")), el("p", null, locked ? t("unlockTold") : t("lockTold")),
        withReason("lock", locked ? t("unlock") : t("lock"), (reason) => postJson(locked ? "/v1/unlock" : "/v1/lock", { reason }), again, locked ? "button" : "button danger")),
      el("details", null, el("summary", null, t("newEpoch")), el("p", null, t("newEpochTold")),
        withReason("epoch", t("newEpoch"), (reason) => postJson("/v1/epochs", { reason }), again)),
      el("details", null, el("summary", null, t("drill")), el("p", null, t("drillTold")),
        el("p", { class: "actions" }, button(drill ? t("drillStop") : t("drillStart"), drilling)))));
}
