// Charts of seals, latency and anchor lag, drawn from samples that the box takes of itself (`/v1/history`).
//
// Every chart has the same numbers as a table beside it: a drawing alone tells nothing to whoever cannot see it.

import { get } from "./api.js";
import { card, el, fill, svg, table } from "./dom.js";
import { clock, number, span, t } from "./words.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [640, 200, 52, 26, 12];
const EVERY = 10_000;
const FEW = 60;

/** The smallest of 1, 2 or 5 times a power of ten that is no less. */
function round(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

/** Line charts over time. `series` are [class, name, of], `of` a number of a sample or null. */
function chart(samples, words, series, written, id) {
  const [from, to] = [samples[0].atMillis, samples[samples.length - 1].atMillis];
  const most = round(Math.max(0, ...samples.flatMap((one) => series.map(([, , of]) => of(one) ?? 0))));
  const x = (at) => LEFT + ((WIDTH - LEFT - 10) * (at - from)) / Math.max(1, to - from);
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * value) / most;
  const path = (of) => {
    let [drawn, begun] = ["", false];
    for (const one of samples) {
      const value = of(one);
      if (value === null || value === undefined) begun = false;
      else {
        drawn += `${begun ? "L" : "M"}${x(one.atMillis).toFixed(1)} ${y(value).toFixed(1)}`;
        begun = true;
      }
    }
    return drawn;
  };
  // A line needs two samples: few ones, and those that stand alone, are points as well.
  const missing = (one, of) => one === undefined || of(one) === null;
  const points = (kind, of) => samples.map((one, at) =>
    !missing(one, of) && (samples.length <= FEW || (missing(samples[at - 1], of) && missing(samples[at + 1], of)))
      ? svg("circle", { class: `point ${kind}`, cx: x(one.atMillis), cy: y(of(one)), r: 3 }) : null);
  const grid = [0, 0.5, 1].map((part) => [
    svg("line", { class: "grid", x1: LEFT, x2: WIDTH - 10, y1: y(most * part), y2: y(most * part) }),
    svg("text", { class: "tick", x: LEFT - 8, y: y(most * part) + 4, "text-anchor": "end" }, written(most * part))]);
  const times = [from, (from + to) / 2, to].map((at, index) =>
    svg("text", { class: "tick", x: x(at), y: HEIGHT - 6, "text-anchor": ["start", "middle", "end"][index] }, clock(at)));
  const last = samples[samples.length - 1];
  const told = series.map(([, name, of]) => `${name}: ${of(last) === null ? t("nothing") : written(of(last))}`).join(", ");
  const recent = samples.slice(-12).reverse();
  return card(words,
    el("figure", { id },
      svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${words}. ${t("newest")}: ${told}` },
        grid, times, series.map(([kind, , of]) => [svg("path", { class: `series ${kind}`, d: path(of) }), points(kind, of)])),
      el("figcaption", null, series.map(([kind, name]) => el("span", { class: `key ${kind}` }, name)))),
    el("details", null, el("summary", null, t("asTable")),
      table(words, [t("time"), ...series.map(([, name]) => name)],
        recent.map((one) => [clock(one.atMillis), ...series.map(([, , of]) => (of(one) === null ? "\u2013" : written(of(one))))]))));
}

const whole = (value) => number(Math.round(value * 100) / 100);
const millis = (value) => `${number(Math.round(value * 100) / 100)} ms`;

/** Shows it; what it returns ends it. */
export async function charts(place) {
  const drawn = el("div", { id: "charts" });
  fill(place, el("h1", null, t("navCharts")), el("p", { class: "lead", id: "sampled" }, t("chartsLead")), drawn);
  const samples = [];
  let [ended, timer, period] = [false, 0, 10];
  const look = async () => {
    const after = samples.length > 0 ? `?after=${samples[samples.length - 1].atMillis}` : "";
    const more = await get(`/v1/history${after}`, { background: true }).catch(() => null);
    if (ended) return;
    if (more) {
      period = more.periodSeconds;
      samples.push(...more.samples);
      // Whoever reads a table should not have it taken away.
      const reading = drawn.querySelector("details[open]") !== null || drawn.contains(document.activeElement);
      if ((more.samples.length > 0 || drawn.childElementCount === 0) && !reading) draw();
    }
    timer = setTimeout(look, EVERY);
  };
  const draw = () => {
    if (samples.length === 0) {
      fill(drawn, card(t("chartSeals"), el("p", null, t("noSamples", span(period)))));
      return;
    }
    const anchored = samples.some((one) => one.anchorLagSeconds !== null);
    fill(drawn,
      chart(samples, t("chartSeals"), [["first", t("sealsPerMinute"), (one) => (one.seals * 60) / period]], whole, "chart-seals"),
      chart(samples, t("chartLatency"), [
        ["first", t("half"), (one) => (one.halfMicros === null ? null : one.halfMicros / 1_000)],
        ["second", t("most"), (one) => (one.mostMicros === null ? null : one.mostMicros / 1_000)]], millis, "chart-latency"),
      anchored ? chart(samples, t("chartLag"), [["first", t("oldestWaits"), (one) => one.anchorLagSeconds]], (value) => `${whole(value)} s`, "chart-lag")
        : card(t("chartLag"), el("p", null, t("noAnchors"))));
  };
  await look();
  return () => {
    ended = true;
    clearTimeout(timer);
  };
}
