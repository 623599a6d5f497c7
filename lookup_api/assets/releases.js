// The releases of the store with what their reports measured, newest first.

import { ask, element, keepKey, say } from "./door.js";

const COLUMNS = ["recall@20", "recall@100", "ndcg@20", "mrr", "coverage", "gini"];
const form = document.getElementById("ask");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  read();
});
keepKey(form.elements.key);
read();

async function read() {
  try {
    const answer = await ask("/v1/releases");
    const count = answer.releases.length;
    say(`${count || "No"} release${count === 1 ? "" : "s"}; this server serves ${answer.served ?? "none"}.`);
    document.getElementById("list").replaceChildren(table(answer));
  } catch (problem) {
    document.getElementById("list").replaceChildren();
    say(problem.message, true);
  }
}

function table(answer) {
  const names = ["release", "as of", "users", ...COLUMNS, "best heuristic's recall@20"];
  const head = element("tr", {}, ...names.map((name, i) => element("th", { scope: "col", ...numeric(i) }, name)));
  const rows = answer.releases.map((release) => row(release, answer));
  const caption = element("caption", {}, "What each report measured; CURRENT is what servers are told to serve.");
  return element("table", {}, caption, element("thead", {}, head), element("tbody", {}, ...rows));
}

function row(release, answer) {
  const badges = [];
  if (release.release_id === answer.current) badges.push(" ", element("span", { class: "badge" }, "CURRENT"));
  if (release.release_id === answer.served) badges.push(" ", element("span", { class: "badge" }, "served here"));
  const cells = [
    element("th", { scope: "row" }, element("code", {}, release.release_id), ...badges),
    ...[release.as_of, release.users.toLocaleString("en"), ...COLUMNS.map((name) => rounded(release.metrics[name])),
      best(release.peers_recall)].map((text, i) => element("td", numeric(i + 1), text)),
  ];
  return element("tr", { "data-release": release.release_id }, ...cells);
}

function numeric(column) {
  return column >= 2 ? { class: "number" } : {};
}

function rounded(value) {
  return value === undefined ? "–" : value.toFixed(3);
}

function best(peers) {
  const found = Object.entries(peers).sort((a, b) => b[1] - a[1])[0];
  return found ? `${rounded(found[1])} (${found[0]})` : "–";
}
