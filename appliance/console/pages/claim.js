// The claim page looks again by itself, and shows what has changed without losing the reader's place.
//
// Without this script a browser loads the page again (`noscript` in its head). It comes as HTML, made by the box with
// everything from outside as text, and is taken over as the nodes that it is.

const EVERY = 2_000;
/** So many answers may fail to come before the page says so. */
const PATIENCE = 3;
const say = document.getElementById("say");
let missed = 0;

async function look() {
  try {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [fresh, shown] = [page.getElementById("content"), document.getElementById("content")];
    missed = 0;
    document.getElementById("away").hidden = true;
    if (!fresh.querySelector("#state").isEqualNode(shown.querySelector("#state"))) {
      if (shown.querySelector("details").open) fresh.querySelector("details").open = true;
      shown.replaceWith(document.adoptNode(fresh));
      document.title = page.title;
      say.textContent = document.getElementById("state").innerText;
    }
  } catch {
    missed += 1;
    const away = document.getElementById("away");
    if (missed === PATIENCE) {
      away.hidden = false;
      say.textContent = away.textContent;
    }
  }
  if (!document.getElementById("content").dataset.last) setTimeout(look, EVERY);
}

if (!document.getElementById("content").dataset.last) setTimeout(look, EVERY);
