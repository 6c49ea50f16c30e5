// What tests/e2e/test_npm_client.py runs: the official JavaScript client against the server in OLLAMA_HOST.
// argv: an importable path of the package, the digest of an uploaded blob, and a registry, empty for none.
import { pathToFileURL } from 'node:url'

const [path, digest, registry] = process.argv.slice(2)
const { Ollama } = await import(pathToFileURL(path).href)
const client = new Ollama({ host: process.env.OLLAMA_HOST })

const statuses = []
for await (const part of await client.create({ model: 'c', files: { 'm.gguf': digest }, system: 'Be brief.', stream: true })) {
  statuses.push(part.status)
}
const once = await client.create({ model: 'd', from: 'c', parameters: { temperature: 0.1 }, license: ['MIT'], stream: false })
const quantized = await client.create({ model: 'q', from: 'c', quantize: 'q8_0', stream: false })
const listed = (await client.list()).models.map((model) => model.name).sort()
const shown = await client.show({ model: 'd' })
const copied = await client.copy({ source: 'd', destination: 'e' })

let transferred = null
if (registry) {
  const model = `${registry}/acme/npm:1`
  await client.copy({ source: 'c', destination: model })
  const pushed = await client.push({ model, insecure: true, stream: false })
  await client.delete({ model })
  const pulled = []
  for await (const part of await client.pull({ model, insecure: true, stream: true })) pulled.push(part.status)
  transferred = { pushed: pushed.status, pulled: pulled.at(-1), model: (await client.show({ model })).details.family }
  await client.delete({ model })
}

for (const model of ['c', 'd', 'e', 'q']) await client.delete({ model })
const missing = await client.show({ model: 'e' }).then(() => '', (error) => `${error.status_code} ${error.message}`)
const left = (await client.list()).models.length
console.log(JSON.stringify({
  statuses, once: once.status, quantized: quantized.status, listed, license: shown.license, system: shown.system,
  family: shown.details.family, copied, transferred, missing, left,
}))
