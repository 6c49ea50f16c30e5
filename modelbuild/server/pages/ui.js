// The page of `modelbuild serve`: models, disk, and builds as they happen. Plain JavaScript, nothing to build.
// All texts come from strangers' files, so they go into the page as text and never as markup.

const BOX = {width: 200, height: 34, gapX: 40, gapY: 10};
const SHOWN_BUILDS = 20;
// More boxes than these show nothing that the table does not show better.
const DRAWN_ACTIONS = 60;
const byId = (id) => document.getElementById(id);

// -- talking to the server ---------------------------------------------------------------------------------------

function headers() {
  const token = sessionStorage.getItem("token");
  return token ? {Authorization: `Bearer ${token}`} : {};
}

async function ask(path) {
  const response = await fetch(path, {headers: headers()});
  if (response.status === 401) {
    const token = prompt("Token of this server");
    if (token === null) throw new Error("a token is needed");
    sessionStorage.setItem("token", token);
    return ask(path);
  }
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response;
}

const askJson = async (path) => (await ask(path)).json();

// Server-sent events by fetch, because EventSource cannot send a token.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => [line.split(":", 1)[0], line.slice(line.indexOf(":") + 2)]));
      if (fields.data) yield {name: fields.event, data: JSON.parse(fields.data)};
    }
  }
}

// -- models and disk -----------------------------------------------------------------------------------------------

function formatSize(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < units.length - 1; unit++) bytes /= 1024;
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}

function row(cells, numbers = []) {
  const line = document.createElement("tr");
  cells.forEach((text, index) => {
    const cell = line.insertCell();
    cell.textContent = text;
    if (numbers.includes(index)) cell.className = "number";
  });
  return line;
}

async function showModels() {
  const {models} = await askJson("../api/tags");
  byId("models-title").textContent = models.length ? `Models (${models.length.toLocaleString()})` : "Models";
  byId("models").parentElement.hidden = !models.length;
  byId("no-models").hidden = models.length > 0;
  byId("models").replaceChildren(...models.map((model) => row([
    model.name, model.digest.slice(0, 12), formatSize(model.size), model.details.quantization_level,
    model.details.parameter_size, model.details.family, new Date(model.modified_at).toLocaleString(),
  ], [2, 4])));
}

async function showDisk() {
  const sizes = await askJson("../disk");
  byId("disk").replaceChildren(...Object.entries(sizes).flatMap(([name, {files, bytes}]) => {
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    term.textContent = name;
    detail.textContent = `${formatSize(bytes)} in ${files.toLocaleString()} ${files === 1 ? "file" : "files"}`;
    return [term, detail];
  }));
}

// -- builds ---------------------------------------------------------------------------------------------------------

function showBuild(build) {
  const card = cardOf(build);
  const last = build.statuses.at(-1);
  card.querySelector(".model").textContent = build.model;
  setState(card.querySelector("h3 .state"), build.state);
  card.querySelector(".status").textContent = last ? last.status : "";
  const bar = card.querySelector("progress");
  bar.hidden = !(last && last.total) || build.state !== "running";
  if (!bar.hidden) bar.value = (last.completed ?? 0) / last.total;
  showText(card.querySelector(".error"), build.error);
  showText(card.querySelector(".warning"), build.warnings.join("\n"));
  const details = card.querySelector("details");
  details.hidden = !build.actions.length;
  details.querySelector("summary").textContent = `Actions and reasons: ${countStates(build.actions)}`;
  details.ontoggle = () => showActions(details, build.actions);
  showActions(details, build.actions);
  drawGraph(card.querySelector("svg"), build.actions.length > DRAWN_ACTIONS ? [] : build.actions);
}

// The card of a build, a new one for what another server has begun under the same number.
function cardOf(build) {
  const list = byId("builds");
  const old = byId(`build-${build.id}`);
  if (old?.dataset.started === String(build.started)) return old;
  old?.remove();
  list.querySelector(":scope > p")?.remove();
  const card = byId("build").content.firstElementChild.cloneNode(true);
  card.id = `build-${build.id}`;
  card.dataset.started = build.started;
  card.querySelector("details").open = build.state === "running" && build.actions.length <= DRAWN_ACTIONS;
  list.prepend(card);
  while (list.children.length > SHOWN_BUILDS) list.lastElementChild.remove();
  return card;
}

function showText(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

function countStates(actions) {
  const counts = new Map();
  for (const {state} of actions) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].map(([state, count]) => `${count.toLocaleString()} ${state}`).join(", ");
}

function showActions(details, actions) {
  if (!details.open) return;
  details.querySelector("tbody").replaceChildren(...actions.map((action) => row([
    action.title, action.state, action.reasons.join("; "), progressText(action),
  ], [3])));
}

function setState(element, state) {
  element.className = `state ${state}`;
  element.textContent = state;
}

function progressText(action) {
  if (action.state === "running" && action.total_bytes) {
    return `${Math.floor(100 * action.done_bytes / action.total_bytes)} % of ${formatSize(action.total_bytes)}`;
  }
  return action.seconds ? `${action.seconds.toFixed(1)} s` : "";
}

// Actions stand in columns by how much has to come before them.
function placeActions(actions) {
  const depth = new Map();
  for (const action of actions) {
    depth.set(action.id, Math.max(0, ...action.needs.map((id) => (depth.get(id) ?? -1) + 1)));
  }
  const filled = [];
  return new Map(actions.map((action) => {
    const column = depth.get(action.id);
    filled[column] = (filled[column] ?? 0) + 1;
    return [action.id, {
      x: 2 + column * (BOX.width + BOX.gapX), y: 2 + (filled[column] - 1) * (BOX.height + BOX.gapY),
    }];
  }));
}

function drawGraph(svg, actions) {
  const places = placeActions(actions);
  const right = Math.max(0, ...[...places.values()].map((place) => place.x + BOX.width + 2));
  const bottom = Math.max(0, ...[...places.values()].map((place) => place.y + BOX.height + 2));
  svg.setAttribute("viewBox", `0 0 ${right} ${bottom}`);
  svg.style.maxWidth = `${right}px`;
  svg.style.display = actions.length ? "" : "none";
  const edges = actions.flatMap((action) => action.needs.filter((id) => places.has(id)).map((id) => {
    const from = places.get(id), to = places.get(action.id);
    const [x1, y1, x2, y2] = [from.x + BOX.width, from.y + BOX.height / 2, to.x, to.y + BOX.height / 2];
    return shape("path", {d: `M${x1},${y1} C${x1 + BOX.gapX},${y1} ${x2 - BOX.gapX},${y2} ${x2},${y2}`});
  }));
  svg.replaceChildren(...edges, ...actions.map((action) => drawAction(action, places.get(action.id))));
}

function drawAction(action, {x, y}) {
  const share = action.state === "ran" || action.state === "cached" ? 1
    : action.total_bytes ? action.done_bytes / action.total_bytes : 0;
  const group = shape("g", {class: action.state});
  const label = shape("foreignObject", {x: x + 8, y: y + 8, width: BOX.width - 16, height: BOX.height - 8});
  const text = document.createElement("div");
  text.textContent = action.title;
  label.append(text);
  const hint = shape("title", {});
  hint.textContent = [action.title, action.state, ...action.reasons].join("\n");
  group.append(
    hint,
    shape("rect", {class: "fill", x, y, width: BOX.width * share, height: BOX.height, rx: 5}),
    shape("rect", {class: "box", x, y, width: BOX.width, height: BOX.height, rx: 5}),
    label,
  );
  return group;
}

function shape(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// -- keeping up ------------------------------------------------------------------------------------------------------

// Listens before it looks, so that nothing is missed in between.
async function follow() {
  const stream = await ask("../events");
  const [version, {builds}] = await Promise.all([askJson("../api/version"), askJson("../builds")]);
  byId("version").textContent = version.version;
  for (const build of builds) showBuild(build);
  await Promise.all([showModels(), showDisk()]);
  setState(byId("link"), "live");
  for await (const {name, data} of events(stream)) {
    if (name !== "build") continue;
    showBuild(data);
    if (data.state === "done") await Promise.all([showModels(), showDisk()]);
  }
}

for (;;) {
  try {
    await follow();
  } catch (error) {
    console.warn(error);
  }
  setState(byId("link"), "lost");
  await new Promise((resolve) => setTimeout(resolve, 2000));
}
