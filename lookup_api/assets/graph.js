// Draws whom two people both know: the two at the sides, their friends in common between them.

import { drawn } from "./door.js";

const WIDTH = 360;
const ROW = 34;
const MOST = 12;

/** An SVG of the friends, with a text alternative. shared: the answer of /mutual. */
export function mutualGraph(shared) {
  const friends = shared.friends.slice(0, MOST);
  const height = Math.max(3, friends.length + 1) * ROW;
  const one = { x: 40, y: height / 2, id: shared.user_id };
  const other = { x: WIDTH - 40, y: height / 2, id: shared.other_id };
  const between = friends.map((id, i) => ({ x: WIDTH / 2, y: ((i + 1) * height) / (friends.length + 1), id }));
  const lines = between.flatMap((friend) => [line(one, friend), line(friend, other)]);
  const says = `${shared.user_id} and ${shared.other_id} both know ${friends.join(", ") || "nobody"}`;
  return drawn(
    "svg",
    { class: "graph", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": says },
    ...lines,
    ...between.map((friend) => person(friend, "friend", 7)),
    person(one, "end", 12),
    person(other, "end", 12),
  );
}

function line(from, to) {
  return drawn("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y });
}

function person(at, kind, radius) {
  const circle = drawn("circle", { cx: at.x, cy: at.y, r: radius });
  const name = drawn("text", { x: at.x, y: at.y + radius + 11 }, at.id);
  return drawn("g", { class: kind }, circle, name);
}

/** What stands below the drawing. */
export function mutualSays(shared) {
  if (!shared.count) return "No friend in common is among those that the release stores.";
  const more = shared.count > MOST ? `, ${MOST} of them drawn` : "";
  return `${shared.count} friend${shared.count > 1 ? "s" : ""} in common among those that the release stores${more}.`;
}
