// The two languages, and how numbers and times are written in each.

import english from "./en.js";
import german from "./de.js";

const ALL = { en: english, de: german };
const KEPT = "bulla-language";

function first() {
  try {
    const kept = localStorage.getItem(KEPT);
    if (kept in ALL) return kept;
  } catch {
    // A browser that keeps nothing gets the language of its settings.
  }
  return document.documentElement.lang in ALL ? document.documentElement.lang : "en";
}

let now = first();

/** Which language is spoken. */
export const language = () => now;

/** Speaks this one from now on. */
export function speak(tag) {
  now = tag;
  document.documentElement.lang = tag;
  try {
    localStorage.setItem(KEPT, tag);
  } catch {
    // It lasts as long as the page, then.
  }
}

/** The words for `key`; `{0}`, `{1}` are filled in. */
export function t(key, ...given) {
  const words = ALL[now][key] ?? key;
  return words.replace(/\{(\d)\}/g, (_, at) => given[at] ?? "");
}

/** The words for a name out of the API, or the name itself. */
export const named = (prefix, name) => {
  const key = prefix + String(name).split("-").map((part) => part.slice(0, 1).toUpperCase() + part.slice(1)).join("");
  return key in ALL[now] ? ALL[now][key] : String(name);
};

const locale = () => (now === "de" ? "de-CH" : "en-GB");

export const number = (value) => new Intl.NumberFormat(locale()).format(value);

/** Date and time of Unix milliseconds, in the time zone of whoever looks. */
export const moment = (millis) =>
  new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "medium" }).format(new Date(millis));

export const clock = (millis) => new Intl.DateTimeFormat(locale(), { timeStyle: "medium" }).format(new Date(millis));

/** A length of time in the two largest units. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];
  let rest = whole;
  const said = [];
  for (const [unit, size] of parts) {
    const many = Math.floor(rest / size);
    rest -= many * size;
    if (many > 0 || (unit === "second" && said.length === 0)) {
      said.push(new Intl.NumberFormat(locale(), { style: "unit", unit, unitDisplay: "long" }).format(many));
    }
    if (said.length === 2) break;
  }
  return said.join(" ");
}

/** As on a clock: 1:02:03. */
export function ticking(seconds) {
  const two = (value) => String(value).padStart(2, "0");
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 3_600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

export function bytes(many) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
  let [value, at] = [many, 0];
  while (value >= 1_000 && at < units.length - 1) [value, at] = [value / 1_000, at + 1];
  return new Intl.NumberFormat(locale(), { style: "unit", unit: units[at], unitDisplay: "short", maximumFractionDigits: 1 }).format(value);
}

/** What sealed a document, by the name that the log has of it. */
export function by(client) {
  if (client === "console") return t("byConsole");
  return client === "self-test" ? t("bySelfTest") : t("byScanner", client);
}
