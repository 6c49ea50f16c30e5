// Shows /openapi.json to people. Everything is set as text.

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.oneOf || schema.anyOf) return (schema.oneOf ?? schema.anyOf).map(typeOf).join(" | ");
  if (schema.type === "array") return `array of ${typeOf(schema.items ?? {})}`;
  return [].concat(schema.type ?? "any").join(" | ");
}

function showFields(schema) {
  const wide = element("div", "", "wide");
  const table = element("table");
  wide.append(table);
  const body = table.createTBody();
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const line = body.insertRow();
    line.insertCell().append(element("code", name));
    line.insertCell().textContent = typeOf(field) + ((schema.required ?? []).includes(name) ? ", required" : "");
    line.insertCell().textContent = field.description ?? "";
  }
  return wide;
}

function showOperation(path, method, operation) {
  const section = element("section");
  const title = element("h3");
  title.append(element("span", method.toUpperCase(), "method"), element("code", path));
  section.append(title, element("p", operation.description ?? operation.summary));
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  if (body) section.append(body.$ref ? element("p", `Body: ${typeOf(body)}, see below`) : showFields(body));
  const list = element("dl");
  for (const [status, answer] of Object.entries(operation.responses)) {
    list.append(element("dt", status), element("dd", answer.description));
  }
  section.append(list);
  return section;
}

const api = await (await fetch("../openapi.json")).json();
const content = document.getElementById("content");
content.replaceChildren(element("p", api.info.description));
for (const [path, operations] of Object.entries(api.paths)) {
  for (const [method, operation] of Object.entries(operations)) content.append(showOperation(path, method, operation));
}
for (const [name, schema] of Object.entries(api.components.schemas)) {
  const section = element("section");
  section.append(element("h3", name), element("p", schema.description ?? ""));
  if (schema.properties) section.append(showFields(schema));
  for (const form of schema.oneOf ?? []) section.append(element("h4", form.title ?? ""), showFields(form));
  content.append(section);
}
