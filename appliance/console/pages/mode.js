// The state of the box in plain words, and the clock of an outage.

import { el, icon, fill } from "./dom.js";
import { named, number, span, t, ticking } from "./words.js";

/** How urgent a condition or a mode is: good, wait, bad. */
function level(status) {
  if (status.condition.state !== "sealing") return "bad";
  if (["safe", "rollback-suspected"].includes(status.mode)) return "bad";
  // Sealing goes on in an outage: whoever stands at the scanner has nothing to stop for.
  if (["degraded", "emergency", "reconciling"].includes(status.mode)) return "wait";
  return "good";
}

/** What the box does now, as one sentence and an explanation. */
export function state(status) {
  const condition = status.condition.state;
  const kind = level(status);
  const title = condition === "sealing" ? t("stateSealing") : named("state", condition);
  const told = condition === "sealing" ? null : named("told", condition);
  const reason = status.condition.reason ?? status.condition.finding;
  return el("div", { class: `state ${kind}`, id: "state", "data-state": condition, "data-mode": status.mode },
    icon(kind === "good" ? "ok" : kind === "wait" ? "warn" : "stop"),
    el("div", null,
      el("p", { class: "state-title" }, title),
      told && el("p", null, told),
      reason && el("p", { class: "soft" }, t("reasonGiven", reason)),
      el("p", null, el("strong", null, named("mode", status.mode)), " ", named("modeTold", status.mode))));
}

/** What is under way when the world is away; `null` when nothing is. It ticks by itself until it is replaced. */
export function outage(status) {
  const facts = status.outage;
  const now = facts?.outage;
  if (!facts || (!now && !facts.drill && facts.failing.length === 0)) return null;
  const parts = [];
  if (now && ["emergency", "safe"].includes(facts.mode)) {
    const clock = el("p", { class: "clock", id: "outage-clock", role: "timer" });
    const began = performance.now() - now.seconds * 1_000;
    const tick = () => {
      if (!clock.isConnected && clock.dataset.shown) return;
      clock.dataset.shown = "1";
      clock.textContent = ticking((performance.now() - began) / 1_000);
      setTimeout(tick, 1_000);
    };
    fill(clock, ticking(now.seconds));
    setTimeout(tick, 1_000);
    parts.push(el("p", { class: "clock-name" }, t("outageSince", number(now.number))), clock,
      el("p", null, t("outageCounts", number(now.seals), number(now.manifests))));
  } else if (now && facts.mode === "reconciling") {
    parts.push(el("p", null, t("outageOver", number(now.number), span(now.seconds), number(now.seals))));
  }
  if (facts.drill) parts.push(el("p", null, el("strong", null, t("drillRuns"))));
  if (facts.failing.length > 0) {
    parts.push(el("p", { class: "soft" }, t("failing")),
      el("ul", { class: "plain-list" }, facts.failing.map((one) => el("li", null, t("failingOne", one.authority, named("fail", one.failure), span(one.seconds))))));
  }
  return el("div", { class: "outage", id: "outage" }, parts);
}
