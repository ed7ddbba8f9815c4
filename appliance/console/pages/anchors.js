// Anchors: which authorities outside vouch for the log, how far, and what waits; and the manifests of outages.

import { get } from "./api.js";
import { card, el, fill, pairs, table } from "./dom.js";
import { outage } from "./mode.js";
import { moment, number, span, t } from "./words.js";

/** Shows it. */
export async function anchors(place) {
  const [status, manifests] = await Promise.all([get("/v1/status"), get("/v1/manifests")]);
  const all = status.anchors;
  const list = manifests.manifests ?? manifests;
  const seconds = (value) => (value === null ? t("nothing") : span(value));
  const lines = (all?.authorities ?? []).map((one) => [
    one.name, one.operator, number(one.proofs),
    one.revoked ? el("span", { class: "tag bad" }, t("revoked")) : one.failing ? el("span", { class: "tag wait" }, t("answersNot")) : el("span", { class: "tag good" }, t("answers")),
    one.quotaLeft === null ? t("noQuota") : number(one.quotaLeft),
    one.failing ?? "",
  ]);
  fill(place, el("h1", null, t("navAnchors")), el("p", { class: "lead" }, t("anchorsLead")),
    outage(status),
    all ? [
      card(t("howFar"), pairs(
        [t("anchoredTo"), t("ofEntries", number(all.anchoredSize), number(status.size))],
        [t("operatorsNeeded"), number(all.operatorsNeeded)],
        [t("waitingEntries"), number(all.unanchored)],
        [t("waitingFor"), seconds(all.waitingSeconds)],
        [t("lastAnchor"), all.lastAnchorSecondsAgo === null ? t("noneSinceStart") : t("ago", span(all.lastAnchorSecondsAgo))])),
      card(t("authorities"), table(t("authorities"), [t("name"), t("operator"), t("proofs"), t("state"), t("quota"), t("trouble")], lines)),
      all.crls.length > 0 && card(t("crls"), table(t("crls"), [t("certificate"), t("authority"), t("nextUpdate"), t("remark")],
        all.crls.map((one) => [one.subject, one.authority, one.nextUpdateMillis ? moment(one.nextUpdateMillis) : "\u2013",
          one.revoked ? el("span", { class: "tag bad" }, t("revoked")) : one.failing ?? ""]))),
    ] : card(t("noAnchorsTitle"), el("p", null, t("noAnchors"))),
    card(t("manifests"), list.length === 0 ? el("p", { class: "soft" }, t("noManifests"))
      : table(t("manifests"), [t("outageNumber"), t("began"), t("lasted"), t("seals"), t("files")], list.map((one) => [
          one.drill ? t("drillNumber", number(one.outage)) : number(one.outage),
          moment(one.beganMillis), span(one.durationMillis / 1_000), number(one.seals),
          [el("a", { href: one.links.pdf }, "PDF"), " ", el("a", { href: one.links.der }, "DER")]]))));
}
