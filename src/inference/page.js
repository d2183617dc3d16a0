"use strict";
// The step of src/inference/incremental.py, in the browser: the same letters; a vector is a row, a matrix has a row for each input.
const $ = id => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const H = data.hidden, S = data.codes.length, G = H * {elman: 1, gru: 3, lstm: 4}[data.cell];
const LIKELY = 5, LIMIT = 10000;  // guesses kept for each character; symbols that are read, and written, at a time: their states are kept

// -- the network --------------------------------------------------------------------------------------------------------

const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;
function fromHalf(bits) {  // float16: a sign, 5 bits of exponent, 10 of fraction
  const exponent = bits >> 10 & 31, fraction = bits & 1023;
  return (bits >> 15 ? -1 : 1) * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}
const weights = Float32Array.from(new Uint16Array(bytes(data.weights)), fromHalf), biases = new Float32Array(bytes(data.biases));
let atWeight = 0, atBias = 0;
const matrix = size => weights.subarray(atWeight, atWeight += size), bias = size => biases.subarray(atBias, atBias += size);
const layers = Array.from({length: data.layers}, (_, l) => ({
  T: l && !data.from_input ? null : matrix(S * G), U: l ? matrix(H * G) : null, W: matrix(H * G), b: bias(G), b_n: bias(G), h: new Float64Array(H), c: new Float64Array(H)}));
const V = data.readout ? matrix(H * S * (data.to_output ? data.layers : 1)) : null, c_out = data.readout ? bias(S) : null;

function addProduct(out, x, M) {  // out += x M, four rows of M at a time, which is twice as fast as one
  const n = out.length;
  let j = 0, at = 0;
  for (; j + 3 < x.length; j += 4, at += 4 * n) {
    const x0 = x[j], x1 = x[j + 1], x2 = x[j + 2], x3 = x[j + 3];
    for (let i = 0, k = at; i < n; i++, k++) out[i] += x0 * M[k] + x1 * M[k + n] + x2 * M[k + 2 * n] + x3 * M[k + 3 * n];
  }
  for (; j < x.length; j++, at += n) for (let i = 0; i < n; i++) out[i] += x[j] * M[at + i];
}

const f = data.nonlinearity === "relu" ? z => Math.max(z, 0) : Math.tanh, sigmoid = z => 1 / (1 + Math.exp(-z));
const cell = {  // unit i of a layer: x = U x_t + b, r = W h + b_n
  elman(i, x, r, {h}) { h[i] = f(x[i] + r[i]); },
  lstm(i, x, r, {h, c}) {
    const [input, forget, g, output] = [0, 1, 2, 3].map(gate => x[gate * H + i] + r[gate * H + i]);
    c[i] = sigmoid(forget) * c[i] + sigmoid(input) * Math.tanh(g);
    h[i] = sigmoid(output) * Math.tanh(c[i]);
  },
  gru(i, x, r, {h}) {
    const reset = sigmoid(x[i] + r[i]), update = sigmoid(x[H + i] + r[H + i]), n = Math.tanh(x[2 * H + i] + reset * r[2 * H + i]);
    h[i] = (1 - update) * n + update * h[i];
  },
}[data.cell];

function forget() { for (const {h, c} of layers) { h.fill(0); c.fill(0); } }
function step(id) {  // read one symbol; return the logits of the next
  if (id === data.boundary) forget();  // each item of a list begins with a state of zeros
  let below = null;
  for (const layer of layers) {
    const x = Float64Array.from(layer.b), r = Float64Array.from(layer.b_n);
    if (layer.T) for (let i = 0; i < G; i++) x[i] += layer.T[id * G + i];
    if (below) addProduct(x, below, layer.U);
    addProduct(r, layer.h, layer.W);
    for (let i = 0; i < H; i++) cell(i, x, r, layer);
    below = layer.h;
  }
  if (!V) return below.slice();
  const logits = Float64Array.from(c_out);
  layers.slice(data.to_output ? 0 : -1).forEach(({h}, l) => addProduct(logits, h, V.subarray(l * H * S, (l + 1) * H * S)));
  return logits;
}

const likeliest = values => values.reduce((best, value, k) => value > values[best] ? k : best, 0);
function softmax(logits, temperature = 1) {
  const most = logits[likeliest(logits)], p = logits.map(o => Math.exp((o - most) / temperature));
  const total = p.reduce((sum, value) => sum + value, 0);
  if (!(total > 0)) throw Error("The numbers of the network overflow: it diverged in training.");
  return p.map(value => value / total);
}
function draw(logits, temperature, uniform) {  // the first symbol at which the summed probabilities exceed a uniform number
  if (temperature === 0) return likeliest(logits);
  const p = softmax(logits, temperature), u = uniform();
  let sum = 0;
  for (let k = 0; k < S; k++) if ((sum += p[k]) > u) return k;
  return likeliest(p);  // the sum of all may round to less than 1
}
function generator(seed) {  // mulberry32: 32 bits of state, a number in [0, 1) a call
  let a = seed >>> 0;
  return () => {
    a = a + 0x6D2B79F5 | 0;
    let t = Math.imul(a ^ a >>> 15, 1 | a);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 4294967296;
  };
}

// -- text and symbols -----------------------------------------------------------------------------------------------------

const inBytes = data.kind === "bytes", unknown = data.codes.indexOf(null), idOf = new Map(data.codes.map((code, id) => [code, id]));
function lower(text) {  // as in training, a character remains one; of bytes only those of ASCII are lowered
  if (inBytes) return text.replace(/[A-Z]/g, letter => letter.toLowerCase());
  return [...text].map(one => [...one.toLowerCase()].length === 1 ? one.toLowerCase() : one).join("");
}
function codesOf(text) {
  const cased = data.lowercase ? lower(text) : text;
  return inBytes ? [...new TextEncoder().encode(cased)] : [...cased].map(one => one.codePointAt(0));
}
function encode(text) {
  const forms = [text, text.normalize("NFC"), text.normalize("NFD")].map(codesOf);  // é as one character, or as e and an accent
  const codes = forms.find(form => form.every(code => idOf.has(code))) ?? forms[0];
  const missing = new Set(codes.filter(code => !idOf.has(code)));
  if (missing.size && unknown < 0) {
    const names = [...missing].slice(0, 10).map(code => inBytes ? `byte ${code}` : `“${String.fromCodePoint(code)}”`).join(" ");
    throw Error(`The model does not know ${names}${missing.size > 10 ? " …" : ""}. It knows: ${data.labels.slice(0, 150).join(" ")}${S > 150 ? " …" : ""}`);
  }
  return codes.map(code => idOf.get(code) ?? unknown);
}
function decoder() {  // symbol by symbol; a character of several bytes comes with its last one
  const utf8 = new TextDecoder("utf-8", {ignoreBOM: true});
  let begun = [];  // the bytes of a character that is not whole
  if (inBytes) return id => {
    if (id === null) {  // what is left; the decoder goes on as if it had not been asked
      const rest = utf8.decode();
      if (rest) utf8.decode(Uint8Array.from(begun), {stream: true});
      return rest;
    }
    const byte = data.codes[id] ?? 63, text = utf8.decode(Uint8Array.of(byte), {stream: true});
    begun = text ? [] : begun;
    if (!text || (byte >= 0xC2 && byte < 0xF5)) begun.push(byte);
    return text;
  };
  return id => id === null ? "" : String.fromCodePoint(data.codes[id] ?? 0xFFFD);
}

// -- reading and writing --------------------------------------------------------------------------------------------------

const shown = [];  // a character each: text, bits (null: given), the likeliest guesses before it, the units after it
let run = null, pending = 0, cursor = -1, scale = 1;
const number = (id, least, most) => {
  const value = Number($(id).value), sound = $(id).value !== "" && Number.isFinite(value) && value >= least && value <= most;
  if (!sound) throw Error(`${$(id).labels[0].textContent.trim()}: expected a number from ${least} to ${most.toLocaleString("en")}.`);
  return value;
};

function begin(write) {
  stop();
  try {
    const text = $("prompt").value || (write ? data.start : ""), ids = encode(text), list = data.boundary !== null;
    if (!ids.length) throw Error("There is no text to read.");
    const length = write ? number("length", 1, LIMIT) : 0, uniform = generator(write ? number("seed", 0, 2 ** 32 - 1) : 0);
    const queue = list ? [data.boundary, ...ids, ...(write ? [] : [data.boundary])] : ids;
    const cut = Math.max(0, queue.length - LIMIT);
    forget();
    shown.length = 0; scale = 1; cursor = -1;
    $("text").replaceChildren();
    run = {queue: queue.slice(0, LIMIT), hidden: list ? 1 : 0, left: length, uniform, decode: decoder(), logits: null, before: null,
      bits: null, total: 0, scored: 0, hits: 0, steps: 0, started: performance.now(), credit: 0, last: performance.now(), cut};
    say(cut ? `Only the first ${LIMIT.toLocaleString("en")} characters are read.` : "");
    resume();
  } catch (error) { say(error.message); }
}
function resume() {
  run.going = true; run.last = performance.now();
  $("stop").disabled = false; $("more").disabled = true; $("detail").ariaLive = "off";
  pending = requestAnimationFrame(frame);
}
function stop() {
  if (!run?.going) return;
  run.going = false;
  cancelAnimationFrame(pending);
  $("stop").disabled = true; $("more").disabled = false; $("detail").ariaLive = "polite";
  look(shown.length - 1);
  shown.forEach(colour);  // the scale of relu may have grown
}

function advance() {  // one symbol: the next that is given, or one that is drawn
  const given = run.queue.length > 0, {logits, before} = run;
  const id = given ? run.queue.shift() : draw(logits, number("temperature", 0, 5), run.uniform);
  const item = id === data.boundary && before === id;  // nothing is between two line breaks of a list
  let likely = [];
  if (logits && !item) {
    const p = softmax(logits);
    likely = best(p);
    run.bits = (run.bits ?? 0) - Math.log2(p[id]);
    run.total -= Math.log2(p[id]); run.scored += 1; run.hits += likely[0].id === id;
  }
  run.logits = step(id);
  run.before = id; run.steps += 1;
  if (!given) run.left -= 1;
  if (run.hidden) { run.hidden -= 1; return; }
  show(run.decode(id), likely, given);
}
function best(p) {
  const found = [];
  for (let id = 0; id < S; id++) {
    if (found.length === LIKELY && p[id] <= found[LIKELY - 1].p) continue;
    found.push({id, p: p[id]});
    found.sort((a, b) => b.p - a.p || a.id - b.id).splice(LIKELY);
  }
  return found;
}
function show(text, likely, given) {
  if (!text) return;
  const units = new Float32Array(layers.length * H), span = document.createElement("span");
  layers.forEach(({h}, l) => units.set(h, l * H));
  for (const value of units) if (Math.abs(value) > scale) scale = Math.abs(value);  // of relu
  const one = {text, bits: run.bits, likely, units, span};
  run.bits = null;
  span.textContent = text;
  span.dataset.at = shown.length;
  span.className = (given ? "given" : "") + (text === "\n" ? " break" : "");
  if (one.bits !== null) span.title = `${one.bits.toFixed(2)} bits`;
  shown.push(one);
  colour(one);
  $("text").append(span);
}

function frame(now) {
  const rate = Number($("speed").value) || Infinity, until = performance.now() + (rate === Infinity ? 100 : 12), count = shown.length;
  run.credit = rate === Infinity ? 0 : Math.min(run.credit + (now - run.last) / 1000 * rate, rate);
  run.last = now;
  try {
    while (run.queue.length + run.left && (rate === Infinity || run.credit >= 1) && performance.now() < until) { advance(); run.credit -= 1; }
  } catch (error) { say(error.message); stop(); return; }
  if (!(run.queue.length + run.left)) { run.whole = shown.length; show(run.decode(null), [], false); summary(); return stop(); }
  if (shown.length > count) { look(shown.length - 1); summary(); $("text").scrollTop = $("text").scrollHeight; }
  pending = requestAnimationFrame(frame);
}

// -- what is drawn --------------------------------------------------------------------------------------------------------

const say = text => { $("said").textContent = text; };
const percent = p => p >= 0.0995 ? `${(100 * p).toFixed(0)} %` : `${(100 * p).toPrecision(2)} %`;
const typed = (id, most) => Math.min(most, Math.max(1, Math.floor($(id).value) || 1)) - 1;  // a field may be empty, or hold any number
const chosen = () => ({l: typed("layer", layers.length), i: typed("unit", H)});
const signed = (value, share) => `rgb(var(--${value > 0 ? "plus" : "minus"}) / ${(share * Math.min(1, Math.abs(value))).toFixed(3)})`;
function colour({span, bits, units}) {
  const by = $("colour").value, {l, i} = chosen();
  span.style.background = by === "unit" ? signed(units[l * H + i] / scale, .85)
    : by === "surprisal" && bits !== null ? `rgb(var(--hot) / ${(.8 * Math.min(1, bits / 12)).toFixed(3)})` : "";
}
function recolour() {
  $("which").hidden = $("colour").value !== "unit"; $("legend").hidden = $("colour").value !== "surprisal";
  shown.forEach(colour);
  look(cursor);
}

function summary() {
  const {scored, total, hits, steps, started} = run, mean = total / scored, seconds = (performance.now() - started) / 1000;
  const what = `${scored.toLocaleString("en")} ${inBytes ? "bytes" : "characters"} scored`;
  $("summary").textContent = scored ? `${what}: ${total.toFixed(2)} bits, ${mean.toFixed(4)} bits per character, `
    + `perplexity ${(2 ** mean).toFixed(3)}, ${(100 * hits / scored).toFixed(1)} % guessed. ${(steps / seconds).toFixed(0)} a second.` : "";
}
function look(at) {  // put the cursor on a character: its guesses in words, its units in the picture
  shown[cursor]?.span.classList.remove("on");
  cursor = at;
  const one = shown[at], {l, i} = chosen();
  drawUnits(one);
  if (!one) { $("detail").textContent = ""; return; }
  one.span.classList.add("on");
  const name = {" ": "␣", "\n": "↵", "\t": "⇥"}[one.text] ?? one.text;
  const guesses = one.likely.map(({id, p}) => `${data.labels[id]} ${percent(p)}`).join(" · ");
  const cost = one.bits === null ? "given. " : `${one.bits.toFixed(2)} bits, probability ${percent(2 ** -one.bits)}. Likeliest: ${guesses}. `;
  $("detail").textContent = `Character ${at + 1}, “${name}”: ${cost}`
    + ($("colour").value === "unit" ? `Unit ${i + 1} of layer ${l + 1}: ${one.units[l * H + i].toFixed(3)}.` : "");
}

function gridOf() {  // the squares of the picture: their size, how many in a row, the height of a layer
  const width = $("units").clientWidth, size = Math.max(3, Math.min(24, Math.floor(Math.sqrt(width * 260 / layers.length / H))));
  const across = Math.max(1, Math.floor(width / size));
  return {width, size, across, height: Math.ceil(H / across) * size + 8};
}
function drawUnits(one) {
  const canvas = $("units"), pen = canvas.getContext("2d"), {width, size, across, height} = gridOf(), ratio = devicePixelRatio || 1, {l, i} = chosen();
  const style = getComputedStyle(document.documentElement), hue = name => style.getPropertyValue(name).trim();
  const [plus, minus, rule, ink] = ["--plus", "--minus", "--rule", "--ink"].map(hue), tall = height * layers.length;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(tall * ratio)) {
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(tall * ratio); canvas.style.height = `${tall}px`;
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, tall);
  for (let k = 0; k < layers.length * H; k++) {
    const unit = k % H, value = one ? one.units[k] / scale : 0;
    const x = unit % across * size, y = Math.floor(k / H) * height + Math.floor(unit / across) * size;
    pen.fillStyle = Math.abs(value) < .01 ? rule : `rgb(${value > 0 ? plus : minus} / ${Math.abs(value).toFixed(2)})`;
    pen.globalAlpha = Math.abs(value) < .01 ? .35 : 1;
    pen.fillRect(x, y, size - 1, size - 1);
    if (k !== l * H + i || $("colour").value !== "unit") continue;
    pen.globalAlpha = 1; pen.strokeStyle = ink; pen.lineWidth = 2;
    pen.strokeRect(x, y, size - 1, size - 1);
  }
}

function drawCurve() {  // the losses in training, bits per character over characters read, with the counted 5-gram
  const svg = $("curve"), points = data.curve, put = (kind, attributes, text) => {
    const made = document.createElementNS(svg.namespaceURI, kind);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text) made.textContent = text;
    svg.append(made);
  };
  const last = points.at(-1)[0], all = points.flatMap(([, ...values]) => values.filter(value => value !== null)), gram = data.ngram;
  const low = Math.min(...all, gram ?? Infinity), high = Math.max(...all, gram ?? -Infinity), spread = (high - low) || 1;
  const X = x => 40 + x / last * 232, Y = y => 150 - (y - low) / spread * 130, gap = [.02, .05, .1, .2, .5, 1, 2, 5].find(gap => spread / gap <= 6) ?? spread;
  for (let y = Math.ceil(low / gap) * gap; y <= high + 1e-9; y += gap) {
    put("line", {x1: 40, x2: 272, y1: Y(y), y2: Y(y), class: "rule"});
    put("text", {x: 36, y: Y(y) + 4, "text-anchor": "end"}, y.toFixed(gap < .1 ? 2 : 1));
  }
  const ends = [];
  for (const [k, name] of [[1, "train"], [2, "validation"]]) {
    const own = points.filter(point => point[k] !== null);
    if (own.length > 1) put("path", {d: "M" + own.map(point => `${X(point[0]).toFixed(1)} ${Y(point[k]).toFixed(1)}`).join("L"), class: name});
    if (own.length) ends.push([Y(own.at(-1)[k]), name]);
  }
  if (gram !== null) { put("line", {x1: 40, x2: 272, y1: Y(gram), y2: Y(gram), class: "gram"}); ends.push([Y(gram), "5-gram"]); }
  let above = 0;
  for (const [y, name] of ends.sort((a, b) => a[0] - b[0])) { above = Math.max(y, above + 13); put("text", {x: 276, y: above + 4}, name); }
  put("text", {x: 40, y: 172}, "0");
  put("text", {x: 272, y: 172, "text-anchor": "end"}, `${last.toLocaleString("en")} ${inBytes ? "bytes" : "characters"} read`);
}

// -- the controls -----------------------------------------------------------------------------------------------------------

$("write").addEventListener("click", () => begin(true));
$("read").addEventListener("click", () => begin(false));
$("stop").addEventListener("click", stop);
$("another").addEventListener("click", () => { $("seed").value = (Number($("seed").value) || 0) + 1; begin(true); });
$("more").addEventListener("click", () => {
  try {
    const length = number("length", 1, LIMIT);
    if (shown.length + length > 2 * LIMIT) throw Error(`A text ends after ${(2 * LIMIT).toLocaleString("en")} characters.`);
    if (!(run.queue.length + run.left)) run.left = length;
    for (const {span, bits} of shown.splice(run.whole ?? shown.length)) { span.remove(); run.bits = bits; }  // half a character
    run.whole = undefined; run.started = performance.now(); run.steps = 0;
    resume();
  } catch (error) { say(error.message); }
});
$("temperature").addEventListener("input", () => { $("shown_temperature").textContent = Number($("temperature").value).toFixed(2); });
for (const id of ["colour", "layer", "unit"]) $(id).addEventListener("input", recolour);
$("prompt").addEventListener("keydown", event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) begin(true); });
$("text").addEventListener("click", event => { if (event.target.dataset.at && !run?.going) look(Number(event.target.dataset.at)); });
$("text").addEventListener("keydown", event => {
  const to = {ArrowLeft: cursor - 1, ArrowRight: cursor + 1, Home: 0, End: shown.length - 1}[event.key];
  if (to === undefined || run?.going || !shown[to] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  look(to);
  shown[to].span.scrollIntoView({block: "nearest"});
});
$("units").addEventListener("click", event => {
  const {size, across, height} = gridOf(), l = Math.min(layers.length - 1, Math.floor(event.offsetY / height));
  const column = Math.floor(event.offsetX / size), unit = Math.floor((event.offsetY - l * height) / size) * across + column;
  if (column >= across || unit >= H) return;
  $("layer").value = l + 1; $("unit").value = unit + 1; $("colour").value = "unit";
  recolour();
});
addEventListener("resize", () => drawUnits(shown[cursor]));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawUnits(shown[cursor]));
if (matchMedia("(prefers-reduced-motion: reduce)").matches) $("speed").value = "0";
if (data.curve.length) drawCurve();
if (data.example) $("prompt").value = data.example;
recolour();
