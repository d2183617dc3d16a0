"use strict";
// The network of src/worked_example/bptt_example.py, computed again in the browser: the same letters, float64, indices from 0.
const data = JSON.parse(document.getElementById("data").textContent);
const T = data.ids.length, S = data.symbols.length, RATE = 0.1, DIGITS = {z: 3, h: 3, d: 4, y: 3, e: 3};
const f = data.nonlinearity === "tanh" ? Math.tanh : z => Math.max(z, 0);
const $ = id => document.getElementById(id);

const TEXTS = {
  en: {
    title: '"{input}" → "{target}": forward, and back through time', layers: "layers", seed: "seed", layer: "layer", units: "units",
    left: "one step earlier", right: "one step later", up: "one unit up", down: "one unit down", back: "◀ back", next: "compute ▶",
    play: "play", stop: "stop", one_weight: "Change one weight", loss: "loss L = Σ Lₜ", moved: "before the change", measured: "measured: ΔL / Δw",
    update: "one update: w ← w − 0.1 dL/dw", reset: "reset all weights", matrix: "matrix", row: "row", column: "column", other: "the other {n}",
    intro: "Each column is one time step t; the same cell, with the same U, W, b, is used in every column. Each unit shows its sum z, its state h = {f}(z) and its error δ = dL/dz. The loss L is the sum of the Lₜ of all steps. Point at a number: what it is made of is outlined, and the sum is written out.",
    keys: "<kbd>←</kbd> <kbd>→</kbd> time &nbsp; <kbd>↑</kbd> <kbd>↓</kbd> units and layers &nbsp; <kbd>z</kbd> <kbd>h</kbd> <kbd>d</kbd> sum, state, error δ &nbsp; <kbd>y</kbd> output &nbsp; <kbd>n</kbd> <kbd>p</kbd> next and previous step of the computation, first forward through time, then backward &nbsp; <kbd>space</kbd> play &nbsp; In the sums, press a weight to change it.",
    step: "step {t}", unit: "unit {i}", of_layer: "layer {l}", target: "target", above: "above", later: "later", says: "says",
    z: "the sum z", h: "the hidden state h", d: "the error δ = dL/dz", y: "the probability ŷ", e: "the error ŷ − y of the output",
    nothing: "nothing: t = {t} is the last step", zero: "nothing yet: the state before the first step is 0", earlier: "the state before, from the {n} characters read earlier",
    about_above: "from the same step: {what}", about_later: "from step t+1, through W", readout: "the readout, through V", identity: "the output, which is h itself", upper: "layer {l}, through U",
    cut: "Of {n} units per layer {k} are shown at a time, {a} to {b}; every number is computed with all of them. ", cut_symbols: "Of {n} symbols {k} are shown. ",
    source: "Weights: {source}. ", untrained: "Weights: untrained, {command}. ", averaged: "The network was trained on the mean of the Lₜ; here L is their sum. ",
    fell: "{n} updates: L from {a} to {b}; it says “{said}”.", start: "Press “one update” again and again: this is training. It says “{said}”.",
  },
  zh: {
    title: "“{input}” → “{target}”：前向计算，以及沿时间的反向传播", layers: "层数", seed: "随机种子", layer: "层", units: "单元",
    left: "前一时刻", right: "后一时刻", up: "上一个单元", down: "下一个单元", back: "◀ 退一步", next: "算一步 ▶",
    play: "播放", stop: "停止", one_weight: "改变一个权重", loss: "损失 L = Σ Lₜ", moved: "改变之前", measured: "实测：ΔL / Δw",
    update: "更新一次：w ← w − 0.1 dL/dw", reset: "恢复所有权重", matrix: "矩阵", row: "行", column: "列", other: "其余 {n} 项",
    intro: "每一列是一个时刻 t；各列用的是同一个 Cell，共享同样的 U、W、b。每个单元显示加权和 z、隐藏状态 h = {f}(z) 和误差项 δ = dL/dz。损失 L 是各时刻 Lₜ 之和。把光标移到一个数上：它的来源会被框出，算式写在一旁。",
    keys: "<kbd>←</kbd> <kbd>→</kbd> 时刻 &nbsp; <kbd>↑</kbd> <kbd>↓</kbd> 单元和层 &nbsp; <kbd>z</kbd> <kbd>h</kbd> <kbd>d</kbd> 加权和、状态、误差项 δ &nbsp; <kbd>y</kbd> 输出 &nbsp; <kbd>n</kbd> <kbd>p</kbd> 计算的下一步、上一步：先沿时间向前，再沿时间向后 &nbsp; <kbd>空格</kbd> 播放 &nbsp; 点算式里的权重，就可以改变它。",
    step: "时刻 {t}", unit: "单元 {i}", of_layer: "第 {l} 层", target: "目标", above: "above", later: "later", says: "预测",
    z: "加权和 z", h: "隐藏状态 h", d: "误差项 δ = dL/dz", y: "概率 ŷ", e: "输出的误差 ŷ − y",
    nothing: "没有：t = {t} 是最后一个时刻", zero: "还没有：第一个时刻之前的状态是 0", earlier: "之前的状态，由先读入的 {n} 个字符得到",
    about_above: "来自同一时刻：{what}", about_later: "来自时刻 t+1，经过 W", readout: "输出层，经过 V", identity: "输出，即 h 本身", upper: "第 {l} 层，经过 U",
    cut: "每层 {n} 个单元，每次显示 {k} 个（第 {a} 到 {b} 个）；所有数都用全部单元算出。", cut_symbols: "{n} 个字符中显示 {k} 个。",
    source: "权重：{source}。", untrained: "权重：未训练，{command}。", averaged: "这个网络训练时用的是 Lₜ 的平均值；这里的 L 是它们的和。",
    fell: "更新 {n} 次：L 从 {a} 到 {b}；现在预测“{said}”。", start: "反复按“更新一次”，这就是训练。现在预测“{said}”。",
  },
};
const say = (key, values = {}) => TEXTS[state.language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

// -- the numbers ------------------------------------------------------------------------------------------------------

function floats(text, kind) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;
  return kind === "f4" ? Float64Array.from(new Float32Array(bytes)) : new Float64Array(bytes);
}

function network(one) {
  const all = floats(one.weights, one.kind), H = one.hidden, net = {layers: one.layers, H, U: [], W: [], b: [], V: null, c: null};
  let at = 0;
  const take = count => all.slice(at, at += count);
  for (let l = 0; l < net.layers; l++) { net.U.push(take(H * (l ? H : S))); net.W.push(take(H * H)); net.b.push(take(H)); }
  if (data.readout) { net.V = take(S * H); net.c = take(S); }
  net.h0 = one.h_0.map(h => Float64Array.from(h));
  return net;
}

function compute(net) {
  const {layers, H} = net, every = size => Array.from({length: T}, () => new Float64Array(size)), n = {L: 0, losses: []};
  for (const name of ["Ux", "Wh", "z", "h", "above", "later", "slope", "d"]) n[name] = Array.from({length: layers}, () => every(H));
  n.o = every(S); n.y = every(S); n.e = every(S);
  for (let t = 0; t < T; t++) {
    for (let l = 0; l < layers; l++) {
      const {U, W, b} = {U: net.U[l], W: net.W[l], b: net.b[l]}, before = t ? n.h[l][t - 1] : net.h0[l], below = l ? n.h[l - 1][t] : null;
      for (let i = 0; i < H; i++) {
        let ux = 0, wh = 0;
        if (l) for (let j = 0; j < H; j++) ux += U[i * H + j] * below[j]; else ux = U[i * S + data.ids[t]];
        for (let j = 0; j < H; j++) wh += W[i * H + j] * before[j];
        n.Ux[l][t][i] = ux; n.Wh[l][t][i] = wh; n.z[l][t][i] = ux + wh + b[i]; n.h[l][t][i] = f(n.z[l][t][i]);
      }
    }
    const top = n.h[layers - 1][t], o = n.o[t];
    for (let k = 0; k < S; k++) {
      o[k] = net.V ? net.c[k] : top[k];
      if (net.V) for (let j = 0; j < H; j++) o[k] += net.V[k * H + j] * top[j];
    }
    const most = Math.max(...o);
    let total = 0;
    for (let k = 0; k < S; k++) total += Math.exp(o[k] - most);
    for (let k = 0; k < S; k++) { n.y[t][k] = Math.exp(o[k] - most) / total; n.e[t][k] = n.y[t][k] - (k === data.targets[t]); }
    n.losses.push(most + Math.log(total) - o[data.targets[t]]);
    n.L += n.losses[t];
  }
  for (let t = T - 1; t >= 0; t--) for (let l = layers - 1; l >= 0; l--) {
    const {above, later, slope, d} = n, a = above[l][t], b = later[l][t];
    const source = l < layers - 1 ? d[l + 1][t] : n.e[t], M = l < layers - 1 ? net.U[l + 1] : net.V;
    if (M) for (let j = 0; j < source.length; j++) for (let i = 0; i < H; i++) a[i] += M[j * H + i] * source[j]; else a.set(source);
    if (t < T - 1) for (let j = 0; j < H; j++) for (let i = 0; i < H; i++) b[i] += net.W[l][j * H + i] * d[l][t + 1][j];
    for (let i = 0; i < H; i++) {
      slope[l][t][i] = data.nonlinearity === "tanh" ? 1 - n.h[l][t][i] ** 2 : +(n.z[l][t][i] > 0);
      d[l][t][i] = slope[l][t][i] * (a[i] + b[i]);
    }
  }
  return n;
}

// A weight is [name, layer, row, column]; b and c have column 0, V and c layer 0.
const place = (net, [name, l, r, c]) => name === "V" || name === "c" ? [net[name], name === "V" ? r * net.H + c : r]
  : [net[name][l], name === "b" ? r : r * (name === "U" && !l ? S : net.H) + c];
const terms = (net, n, [name, l, r, c]) => data.ids.map((id, t) => {  // of its gradient, one a step
  const top = n.h[net.layers - 1][t];
  if (name === "V" || name === "c") return n.e[t][r] * (name === "V" ? top[c] : 1);
  const before = t ? n.h[l][t - 1] : net.h0[l];
  return n.d[l][t][r] * (name === "b" ? 1 : name === "W" ? before[c] : l ? n.h[l - 1][t][c] : +(id === c));
});
const matrixOf = ([name, l, rows, columns]) => Array.from({length: rows}, (_, r) => Array.from({length: columns}, (_, c) => valueAt([name, l, r, c])));
const sum = values => values.reduce((a, b) => a + b, 0);
function lossAt(net, weight, value) {
  const [array, at] = place(net, weight), kept = array[at];
  array[at] = value;
  const found = compute(net).L;
  array[at] = kept;
  return found;
}
function matrices(net) {
  const found = [];
  for (let l = 0; l < net.layers; l++) found.push(["U", l, net.H, l ? net.H : S], ["W", l, net.H, net.H], ["b", l, net.H, 1]);
  return net.V ? [...found, ["V", 0, S, net.H], ["c", 0, S, 1]] : found;
}
function update(net) {  // w - RATE dL/dw for every weight: sums over t of outer products, from the numbers before the update
  const n = compute(net), {H, layers} = net;
  const step = (matrix, error, factor, width) => error.forEach((d, at) => { if (d) for (let c = 0; c < width; c++) matrix[at * width + c] -= RATE * d * factor[c]; });
  for (let t = 0; t < T; t++) {
    for (let l = 0; l < layers; l++) {
      const d = n.d[l][t], x = l ? n.h[l - 1][t] : Float64Array.from(data.symbols, (_, k) => +(k === data.ids[t]));
      step(net.U[l], d, x, l ? H : S); step(net.W[l], d, t ? n.h[l][t - 1] : net.h0[l], H); step(net.b[l], d, [1], 1);
    }
    if (net.V) { step(net.V, n.e[t], n.h[layers - 1][t], H); step(net.c, n.e[t], [1], 1); }
  }
}

// -- the state of the page ----------------------------------------------------------------------------------------------

const PER_PAGE = 8, SHOWN = S <= 8 ? data.symbols.map((_, k) => k)
  : [...new Set([...data.targets, ...data.ids])].slice(0, 8).sort((a, b) => a - b);
const state = {language: (navigator.language || "en").startsWith("zh") ? "zh" : "en", which: data.initial, first: 0, page: 0, updates: 0,
  pinned: {q: "d", l: 0, t: Math.max(0, T - 2), i: 0}, hovered: null, walk: null, timer: null, weight: ["W", 0, 0, 0]};
let net, n, base, start;
const active = () => state.hovered || state.pinned;
const low = k => String(k).replace(/\d/g, digit => "₀₁₂₃₄₅₆₇₈₉"[digit]);
const tag = (letter, l) => net.layers > 1 ? `${letter}${"¹²³⁴⁵⁶⁷⁸⁹"[l]}` : letter;
const fixed = (x, digits) => { const text = x.toFixed(digits); return (Number(text) ? text : text.replace("-", "")).replace("-", "−"); };
const pageOf = () => Array.from({length: Math.min(PER_PAGE, net.H - state.page * PER_PAGE)}, (_, i) => state.page * PER_PAGE + i);

function choose(which) {
  state.which = which; state.walk = null; state.hovered = null; state.updates = 0;
  net = network(data.networks[which]); base = network(data.networks[which]); n = compute(net); start = n.L;
  const p = state.pinned;
  p.l = Math.min(p.l, net.layers - 1);
  const fits = matrices(net).find(([name, l, rows, columns]) => name === state.weight[0] && l === state.weight[1] && state.weight[2] < rows && state.weight[3] < columns);
  if (!fits) state.weight = ["W", 0, 0, 0];
  fillSelects(); build(); refresh();
}

// -- the drawing ----------------------------------------------------------------------------------------------------------

const cells = new Map();
let arrows = [], letters = [];
function draw(parent, kind, attributes, text) {
  const made = document.createElementNS($("curve").namespaceURI, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}
const idOf = ({q, l, t, i}) => [q, q === "y" || q === "e" ? 0 : l, t, i].join(",");

function build() {
  const width = Math.max(280, $("stage").clientWidth), gap = 28, least = width < 600 ? 92 : 148, units = pageOf();
  const columns = Math.max(1, Math.min(T, Math.floor((width + gap) / (least + gap))));
  state.columns = columns;
  state.first = Math.max(0, Math.min(T - columns, active().t - Math.floor((columns - 1) / 2)));
  const cw = Math.min(230, (width - (columns - 1) * gap) / columns), wide = cw >= 148;
  const row = 24, size = cw >= 170 ? 13 : wide ? 11.5 : 12, unitHeight = wide ? row : 3 * 21 + 5, head = 18;
  const outputHeight = 54 + SHOWN.length * 22, layerHeight = head + units.length * unitHeight + 2, between = 36;
  const y = {output: 1};
  for (let l = net.layers - 1, at = outputHeight + between; l >= 0; l--, at += layerHeight + between) y[l] = at;
  y.input = y[0] + layerHeight + between;
  const height = y.input + 34;
  cells.clear(); arrows = []; letters = []; $("stage").replaceChildren();
  const svg = draw($("stage"), "svg", {viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": say("title", data)});
  const defs = draw(svg, "defs", {});
  for (const [id, colour] of [["tip", "rule"], ["tip-above", "above"], ["tip-later", "later"]])
    draw(draw(defs, "marker", {id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto"}),
      "path", {d: "M0 0L8 4L0 8z", fill: `var(--${colour})`});
  function cell(key, x, top, w, h, label) {
    const g = draw(svg, "g", {class: "cell", tabindex: -1, role: "button", "data-cell": idOf(key)});
    const back = draw(g, "rect", {x, y: top, width: w, height: h, rx: 3});
    draw(g, "rect", {x: x + .5, y: top + .5, width: w - 1, height: h - 1, rx: 3, class: "frame"});
    if (label) draw(g, "text", {x: x + 4, y: top + h - 6, class: "tag", "font-size": 11}, label);
    cells.set(idOf(key), {g, back, key, digits: w < 44 ? 2 : 3, text: draw(g, "text", {x: x + w - 3, y: top + h - 6, "font-size": w < 44 ? 11 : size})});
    g.addEventListener("pointerenter", event => { if (event.pointerType === "mouse") { state.hovered = key; light(); } });
    g.addEventListener("click", () => { stop(); state.hovered = null; pin(key); });
  }
  function arrow(kind, to, x1, y1, x2, y2, label, lx, ly) {  // kind: forward (grey), or the way back, drawn when it is lit
    arrows.push({kind, to, line: draw(svg, "path", {d: `M${x1} ${y1}L${x2} ${y2}`, class: "arrow"}), name: label && draw(svg, "text", {x: lx, y: ly, class: "name"}, label)});
  }
  svg.addEventListener("pointerleave", () => { if (state.hovered) { state.hovered = null; light(); } });
  for (let t = state.first; t < state.first + columns; t++) {
    const x = (t - state.first) * (cw + gap), middle = x + cw / 2;
    draw(svg, "rect", {x, y: y.output, width: cw, height: outputHeight, rx: 5, class: "block"});
    draw(svg, "text", {x: x + 5, y: 14, class: "head"}, `t=${t + 1} ${say("target")} ${data.symbols[data.targets[t]]}`);
    cells.set(`loss,${t}`, {text: draw(svg, "text", {x: x + 5, y: 30, class: "head"}), loss: t});
    const w = (cw - 26) / 2;
    ["ŷ", "ŷ−y"].forEach((name, s) => draw(svg, "text", {x: x + 18 + (s + 1) * (w + 2), y: 46, class: "head", "text-anchor": "end"}, name));
    SHOWN.forEach((k, s) => {
      const top = 50 + s * 22;
      draw(svg, "text", {x: x + 5, y: top + 15, class: k === data.targets[t] ? "head target" : "head"}, data.symbols[k]);
      cell({q: "y", l: 0, t, i: k}, x + 20, top, w, 20); cell({q: "e", l: 0, t, i: k}, x + 22 + w, top, w, 20);
    });
    for (let l = net.layers - 1; l >= 0; l--) {
      draw(svg, "rect", {x, y: y[l], width: cw, height: layerHeight, rx: 5, class: "block"});
      const w = (cw - 8) / 3;
      if (wide) ["z", "h", "δ"].map(letter => tag(letter, l)).forEach((letter, s) => draw(svg, "text", {x: x + 4 + (s + 1) * w - 6, y: y[l] + 13, class: "head", "text-anchor": "end"}, letter));
      if (!wide && net.layers > 1) draw(svg, "text", {x: x + 4, y: y[l] + 13, class: "head"}, say("of_layer", {l: l + 1}));
      units.forEach((i, row_) => ["z", "h", "d"].forEach((q, s) => {
        const top = y[l] + head + row_ * unitHeight;
        if (wide) cell({q, l, t, i}, x + 4 + s * w, top, w - 2, row - 2);
        else cell({q, l, t, i}, x + 4, top + s * 21, cw - 8, 20, q === "d" ? "δ" : q);
      }));
      const under = l ? y[l - 1] : y.input, foot = y[l] + layerHeight, name = tag("U", l), above = l === net.layers - 1 ? outputHeight : y[l + 1] + layerHeight;
      arrow("forward", null, middle - 8, under, middle - 8, foot + 1, t === state.first ? name : null, middle - 32, foot + 22);
      arrow("above", {l, t}, middle + 8, above + 2, middle + 8, y[l] - 1, l === net.layers - 1 ? data.readout ? "Vᵀ" : "" : `${tag("U", l + 1)}ᵀ`, middle + 14, y[l] - 12);
      if (t + 1 < state.first + columns) {
        const m = y[l] + layerHeight / 2;
        arrow("forward", null, x + cw, m - 8, x + cw + gap - 1, m - 8, tag("W", l), x + cw + 7, m - 14);
        arrow("later", {l, t}, x + cw + gap, m + 8, x + cw + 1, m + 8, `${tag("W", l)}ᵀ`, x + cw + 4, m + 24);
      }
      if (l === net.layers - 1) arrow("forward", null, middle - 8, y[l], middle - 8, outputHeight + 3, t === state.first && data.readout ? "V" : null, middle - 24, y[l] - 12);
    }
    letters[t] = draw(svg, "text", {x: middle, y: y.input + 18, class: "letter"}, data.symbols[data.ids[t]]);
    draw(svg, "text", {x: middle, y: y.input + 32, class: "head", "text-anchor": "middle"}, `x${low(t + 1)}`);
  }
}

const valueOf = ({q, l, t, i}) => q === "y" ? n.y[t][i] : q === "e" ? n.e[t][i] : n[q][l][t][i];
function rank({q, l, t}) {  // the order of the computation
  if (q === "d") return T * (net.layers + 1) + (T - 1 - t) * net.layers + (net.layers - 1 - l);
  return t * (net.layers + 1) + (q === "y" || q === "e" ? net.layers : l);
}

function refresh(sliding = false) {  // numbers and colours
  const most = {z: 0, h: 1, d: 0, y: 1, e: 1};
  for (const q of ["z", "d"]) for (const layer of n[q]) for (const values of layer) for (const value of values) most[q] = Math.max(most[q], Math.abs(value));
  for (const {g, back, text, key, loss, digits} of cells.values()) {
    if (loss !== undefined) { text.textContent = `L${low(loss + 1)} = ${fixed(n.losses[loss], 3)}`; continue; }
    const value = valueOf(key), share = Math.min(1, Math.abs(value) / (most[key.q] || 1));
    text.textContent = fixed(value, digits);
    back.setAttribute("fill", `rgb(var(--${value < 0 ? "minus" : "plus"}) / ${(.6 * share ** .7).toFixed(3)})`);
    g.setAttribute("data-value", value);
    g.setAttribute("aria-label", `${nameOf(key)}: ${fixed(value, DIGITS[key.q])}`);
  }
  weigh(sliding); light(); about();
}

function sourcesOf({q, l, t, i}) {
  const layer = (kind, l, t) => Array.from({length: net.H}, (_, j) => idOf({q: kind, l, t, i: j}));
  if (q === "d") return {above: l < net.layers - 1 ? layer("d", l + 1, t) : net.V ? SHOWN.map(k => idOf({q: "e", l: 0, t, i: k})) : [idOf({q: "e", l: 0, t, i})],
    later: t + 1 < T ? layer("d", l, t + 1) : []};
  if (q === "z") return {above: l ? layer("h", l - 1, t) : [], later: t ? layer("h", l, t - 1) : []};
  if (q === "h") return {above: [idOf({q: "z", l, t, i})], later: []};
  if (q === "e") return {above: [idOf({q: "y", l: 0, t, i})], later: []};
  return {above: net.V ? layer("h", net.layers - 1, t) : [idOf({q: "h", l: net.layers - 1, t, i})], later: []};
}

function light() {  // what is selected, and what it is made of
  const key = active(), id = idOf(key), {above, later} = sourcesOf(key), blue = new Set(above), orange = new Set(later);
  for (const [name, {g, key: own}] of cells) if (g) {
    g.setAttribute("class", `cell${name === id ? " on" : blue.has(name) ? " above" : orange.has(name) ? " later" : ""}${state.walk !== null && rank(own) > state.walk ? " future" : ""}`);
    g.setAttribute("tabindex", name === idOf(state.pinned) ? 0 : -1);
  }
  letters.forEach((letter, t) => letter.setAttribute("class", key.q === "z" && !key.l && key.t === t ? "letter above" : "letter"));
  for (const {kind, to, line, name} of arrows) if (kind !== "forward") {
    const lit = key.q === "d" && to.l === key.l && to.t === key.t;
    line.setAttribute("class", `arrow ${kind}`); line.style.display = lit ? "" : "none";
    if (name) { name.setAttribute("class", `name ${kind}`); name.style.display = lit ? "" : "none"; }
  }
  for (const button of $("quantities").children) button.setAttribute("aria-pressed", button.value === key.q);
  $("layer").value = key.l;
  write(key);
}

// -- the sums, written out ------------------------------------------------------------------------------------------------

const bracket = (letter, t, i) => `${letter}<sub>${t + 1}</sub>[${i + 1}]`;
const nameOf = ({q, l, t, i}) => `${say(q)}, ${say("step", {t: t + 1})}, ${q === "y" || q === "e" ? `“${data.symbols[i]}”` : `${net.layers > 1 ? `${say("of_layer", {l: l + 1})}, ` : ""}${say("unit", {i: i + 1})}`}`;
const escape = text => text.replace(/[&<>"]/g, letter => `&#${letter.charCodeAt(0)};`);
const press = (weight, digits) => `<button type="button" data-weight="${weight.join(",")}">${fixed(valueAt(weight), digits)}</button>`;
const valueAt = weight => { const [array, at] = place(net, weight); return array[at]; };
function products(pairs, digits, result) {  // pairs of [weight, factor]; of many the largest six
  const worth = pairs.map(([weight, factor]) => [weight, factor, valueAt(weight) * factor]);
  const kept = worth.length <= 8 ? worth : [...worth].sort((a, b) => Math.abs(b[2]) - Math.abs(a[2])).slice(0, 6);
  const rest = result - sum(kept.map(([, , product]) => product));
  const texts = kept.map(([weight, factor]) => `<span>(${press(weight, digits)})(${fixed(factor, digits)})</span>`).join(" + ");
  const more = worth.length > kept.length ? ` ${rest < 0 ? "−" : "+"} ${fixed(Math.abs(rest), digits)} (${say("other", {n: worth.length - kept.length})})` : "";
  return `${texts}${more} = <b>${fixed(result, digits)}</b>`;
}
const plus = (x, digits) => `${x < 0 && Number(x.toFixed(digits)) ? "−" : "+"} ${fixed(Math.abs(x), digits)}`;

function write(key) {
  const {q, l, t, i} = key, lines = [], one = Array.from({length: net.H}, (_, j) => j), next = `<sub>${t + 2}</sub>`;
  $("what").textContent = nameOf(key);
  const line = (text, kind = "") => lines.push(`<p class="${kind}">${text}</p>`);
  if (q === "d") {
    const a = n.above[l][t][i], b = n.later[l][t][i], top = l === net.layers - 1, d = tag("δ", l), W = tag("W", l);
    line(`${bracket(d, t, i)} = f′(${bracket(tag("z", l), t, i)}) × (above + later) = ${fixed(n.slope[l][t][i], 4)} × (${fixed(a, 4)} ${plus(b, 4)}) = <b>${fixed(n.d[l][t][i], 4)}</b>`);
    const what = !top ? say("upper", {l: l + 2}) : say(net.V ? "readout" : "identity");
    const pairs = top ? Array.from({length: S}, (_, k) => [["V", 0, k, i], n.e[t][k]]) : one.map(j => [["U", l + 1, j, i], n.d[l + 1][t][j]]);
    const formula = top ? net.V ? `Vᵀ(ŷ<sub>${t + 1}</sub> − y<sub>${t + 1}</sub>)` : `ŷ<sub>${t + 1}</sub> − y<sub>${t + 1}</sub>` : `${tag("U", l + 1)}ᵀ ${tag("δ", l + 1)}<sub>${t + 1}</sub>`;
    line(`<b>above</b> (${say("about_above", {what})}) = ${formula} = ${top && !net.V ? `<b>${fixed(a, 4)}</b>` : products(pairs, 4, a)}`, "above");
    line(`<b>later</b> (${say("about_later")}) = ${t + 1 < T ? `${W}ᵀ ${d}${next} = ${products(one.map(j => [["W", l, j, i], n.d[l][t + 1][j]]), 4, b)}` : `0: ${say("nothing", {t: t + 1})}`}`, "later");
    line(`f′(z) = ${data.nonlinearity === "tanh" ? `1 − h² = 1 − (${fixed(n.h[l][t][i], 4)})² = ${fixed(n.slope[l][t][i], 4)}` : `${n.slope[l][t][i]}: z ${n.slope[l][t][i] ? "> 0" : "≤ 0"}`}`);
  } else if (q === "z") {
    const ux = n.Ux[l][t][i], wh = n.Wh[l][t][i], x = l ? `${tag("h", l - 1)}<sub>${t + 1}</sub>` : `x<sub>${t + 1}</sub>`, b = ["b", l, i, 0];
    line(`${bracket(tag("z", l), t, i)} = ${tag("U", l)} ${x} + ${tag("W", l)} ${tag("h", l)}<sub>${t}</sub> + ${tag("b", l)} = ${fixed(ux, 3)} ${plus(wh, 3)} + (${press(b, 3)}) = <b>${fixed(n.z[l][t][i], 3)}</b>`);
    line(`${tag("U", l)} ${x} = ${l ? products(one.map(j => [["U", l, i, j], n.h[l - 1][t][j]]), 3, ux) : `U[${i + 1},${escape(data.symbols[data.ids[t]])}] = ${press(["U", 0, i, data.ids[t]], 3)}`}`, "above");
    const before = t ? n.h[l][t - 1] : net.h0[l], note = t ? "" : data.earlier ? ` (${say("earlier", {n: data.earlier})})` : "";
    line(t || data.earlier ? `${tag("W", l)} ${tag("h", l)}<sub>${t}</sub>${note} = ${products(one.map(j => [["W", l, i, j], before[j]]), 3, wh)}` : `${tag("W", l)} ${tag("h", l)}<sub>0</sub> = 0: ${say("zero")}`, "later");
  } else if (q === "h") {
    line(`${bracket(tag("h", l), t, i)} = ${data.nonlinearity}(${bracket(tag("z", l), t, i)}) = ${data.nonlinearity}(${fixed(n.z[l][t][i], 3)}) = <b>${fixed(n.h[l][t][i], 3)}</b>`);
  } else {
    const s = escape(data.symbols[i]), h = `${tag("h", net.layers - 1)}<sub>${t + 1}</sub>`, total = sum([...n.o[t]].map(Math.exp));
    if (q === "e") line(`ŷ<sub>${t + 1}</sub>[${s}] − y<sub>${t + 1}</sub>[${s}] = ${fixed(n.y[t][i], 3)} − ${+(data.targets[t] === i)} = <b>${fixed(n.e[t][i], 3)}</b>`);
    line(`ŷ<sub>${t + 1}</sub>[${s}] = exp(o<sub>${t + 1}</sub>[${s}]) / Σ exp(o<sub>${t + 1}</sub>) = ${fixed(Math.exp(n.o[t][i]), 3)} / ${fixed(total, 3)} = <b>${fixed(n.y[t][i], 3)}</b>`);
    if (net.V) line(`o<sub>${t + 1}</sub>[${s}] = V ${h} + c = ${products([...one.map(j => [["V", 0, i, j], n.h[net.layers - 1][t][j]]), [["c", 0, i, 0], 1]], 3, n.o[t][i])}`, "above");
    else line(`o<sub>${t + 1}</sub> = ${h}`, "above");
    line(`L<sub>${t + 1}</sub> = −log ŷ<sub>${t + 1}</sub>[${escape(data.symbols[data.targets[t]])}] = −log ${fixed(n.y[t][data.targets[t]], 4)} = <b>${fixed(n.losses[t], 4)}</b>`);
  }
  $("lines").innerHTML = lines.join("");
}

// -- one weight -----------------------------------------------------------------------------------------------------------

function options(select, entries, value) {
  select.replaceChildren(...entries.map(([key, text]) => new Option(text, key)));
  select.value = value;
}
function weigh(sliding = false) {
  const [name, l, r, c] = state.weight, all = matrices(net), own = all.find(([a, b]) => a === name && b === l), value = valueAt(state.weight);
  const upper = name === "V" || name === "c", label = upper ? name : tag(name, l), rowName = k => upper ? data.symbols[k] : k + 1;
  const columnName = k => name === "U" && !l ? data.symbols[k] : k + 1, index = own[3] > 1 ? `${rowName(r)},${columnName(c)}` : rowName(r);
  options($("matrix"), all.map(([a, b]) => [`${a},${b}`, a === "V" || a === "c" ? a : tag(a, b)]), `${name},${l}`);
  options($("row"), Array.from({length: own[2]}, (_, k) => [k, rowName(k)]), r);
  options($("column"), Array.from({length: own[3]}, (_, k) => [k, columnName(k)]), c);
  $("column").hidden = own[3] === 1;
  const small = own[2] <= 8 && own[3] <= 8, most = Math.max(...(small ? matrixOf(own).flat().map(Math.abs) : [1])) || 1;
  $("grid").replaceChildren(...(small ? matrixOf(own) : []).map((values, k) => {
    const line = document.createElement("tr");
    values.forEach((one, m) => {
      const button = Object.assign(document.createElement("button"), {type: "button", textContent: fixed(one, 3)});
      button.style.background = `rgb(var(--${one < 0 ? "minus" : "plus"}) / ${(.6 * Math.abs(one) / most).toFixed(3)})`;
      button.setAttribute("aria-pressed", k === r && m === c);
      button.setAttribute("aria-label", `${label}[${rowName(k)}${own[3] > 1 ? `,${columnName(m)}` : ""}]`);
      button.dataset.weight = [name, l, k, m];
      line.appendChild(document.createElement("td")).append(button);
    });
    return line;
  }));
  const slider = $("weight"), [array, at] = place(base, state.weight), middle = array[at];
  slider.min = middle - 2; slider.max = middle + 2; slider.value = value;
  slider.setAttribute("aria-valuetext", fixed(value, 3));
  const parts = terms(net, n, state.weight), g = sum(parts), e = 1e-5, before = start;
  $("value").textContent = `${label}[${index}] = ${fixed(value, 3)}`;
  $("loss").textContent = `${fixed(n.L, 4)} (${n.L - before >= 0 ? "+" : "−"}${fixed(Math.abs(n.L - before), 4)})`;
  $("loss").dataset.value = n.L;
  $("moved").textContent = fixed(before, 4);
  $("dname").textContent = `dL/d${label}[${index}]`;
  $("gradient").textContent = fixed(g, 6); $("gradient").dataset.value = g;
  $("measured").textContent = fixed((lossAt(net, state.weight, value + e) - lossAt(net, state.weight, value - e)) / (2 * e), 6);
  const error = upper ? `(ŷ<sub>t</sub>−y<sub>t</sub>)[${escape(String(rowName(r)))}]` : `${tag("δ", l)}<sub>t</sub>[${r + 1}]`;
  const factor = {U: l ? ` ${tag("h", l - 1)}<sub>t</sub>[${c + 1}]` : ` x<sub>t</sub>[${escape(String(columnName(c)))}]`, W: ` ${tag("h", l)}<sub>t−1</sub>[${c + 1}]`, V: ` ${tag("h", net.layers - 1)}<sub>t</sub>[${c + 1}]`}[name] || "";
  $("sum").innerHTML = `= Σ<sub>t</sub> ${error}${factor} = ${parts.map((x, t) => t ? plus(x, 4) : fixed(x, 4)).join(" ")} = <b>${fixed(sum(parts), 4)}</b>`;
  if (!sliding) along = lossesAlong(middle);
  curve(middle, value, g);
  const said = n.o.map(o => data.symbols[o.indexOf(Math.max(...o))]).join("");
  $("training").textContent = state.updates ? say("fell", {n: state.updates, a: fixed(start, 4), b: fixed(n.L, 4), said}) : say("start", {said});
}
let along;  // L over the range of the slider, which stays the same while the slider moves
function lossesAlong(middle) {
  const points = net.H * net.H * net.layers > 20000 ? 9 : 61, xs = Array.from({length: points}, (_, k) => middle - 2 + 4 * k / (points - 1));
  return [xs, xs.map(x => lossAt(net, state.weight, x))];
}
function curve(middle, value, g) {  // L over the weight, with the tangent whose slope is the gradient
  const svg = $("curve"), [xs, ys] = along;
  svg.replaceChildren();
  let low = Math.min(...ys, n.L), high = Math.max(...ys, n.L);
  if (high - low < 1e-3) { low -= .001; high += .001; }
  const X = x => 8 + 344 * (x - middle + 2) / 4, Y = y => 112 - 96 * (y - low) / (high - low), dx = .6;
  draw(svg, "path", {d: xs.map((x, k) => `${k ? "L" : "M"}${X(x).toFixed(1)} ${Y(ys[k]).toFixed(1)}`).join("")});
  draw(svg, "path", {class: "tangent", d: `M${X(value - dx)} ${Y(n.L - g * dx)}L${X(value + dx)} ${Y(n.L + g * dx)}`});
  draw(svg, "circle", {cx: X(value), cy: Y(n.L), r: 5});
  draw(svg, "text", {x: 8, y: 127}, fixed(middle - 2, 2)); draw(svg, "text", {x: 352, y: 127, "text-anchor": "end"}, fixed(middle + 2, 2));
  draw(svg, "text", {x: 8, y: 11}, `L: ${fixed(low, 3)} … ${fixed(high, 3)}`);
  svg.setAttribute("aria-label", `L, ${$("value").textContent}`);
}
function set(weight, value) {
  const [array, at] = place(net, weight);
  array[at] = value; n = compute(net); refresh(true);
}

// -- moving about ---------------------------------------------------------------------------------------------------------

function pin(key, focus = true) {
  state.pinned = {...key};
  const page = Math.floor(key.i / PER_PAGE), columns = state.columns;
  const inside = key.t >= state.first && key.t < state.first + columns && (key.t + 1 >= T || columns < 2 || key.t + 1 < state.first + columns || key.q !== "d");
  if ("zhd".includes(key.q) && page !== state.page) { state.page = page; $("units").value = page; build(); refresh(); }
  else if (!inside || (columns < T && key.t === state.first && key.t)) { build(); refresh(); }
  else light();
  if (focus) cells.get(idOf(state.pinned))?.g.focus({preventScroll: false});
}
function move(dt, du) {
  stop();
  const key = {...state.pinned}, out = key.q === "y" || key.q === "e";
  key.t = Math.max(0, Math.min(T - 1, key.t + dt));
  if (du && out) {
    const at = SHOWN.indexOf(key.i) + du;
    if (at >= SHOWN.length) Object.assign(key, {q: key.q === "e" ? "d" : "h", l: net.layers - 1, i: 0}); else key.i = SHOWN[Math.max(0, at)];
  } else if (du) {
    key.i += du;
    if (key.i < 0 && key.l === net.layers - 1) Object.assign(key, {q: key.q === "d" ? "e" : "y", l: 0, i: SHOWN.at(-1)});
    else if (key.i < 0) Object.assign(key, {l: key.l + 1, i: net.H - 1});
    else if (key.i >= net.H) Object.assign(key, key.l ? {l: key.l - 1, i: 0} : {i: net.H - 1});
  }
  state.walk = null; state.hovered = null;
  pin(key);
}
const targetAt = t => SHOWN.includes(data.targets[t]) ? data.targets[t] : SHOWN[0];
function quantity(q) {
  stop();
  const key = state.pinned, out = q === "y" || q === "e", was = key.q === "y" || key.q === "e";
  state.walk = null; state.hovered = null;
  pin({q, l: was && !out ? net.layers - 1 : key.l, t: key.t, i: was === out ? key.i : out ? targetAt(key.t) : 0});
}
function walk(by) {  // the next or previous step of the computation: forward through time, then backward
  const last = T * (2 * net.layers + 1) - 1;
  state.walk = state.walk === null ? (by > 0 ? 0 : last) : Math.max(0, Math.min(last, state.walk + by));
  const k = state.walk, forward = T * (net.layers + 1), i = state.page * PER_PAGE;
  state.hovered = null;
  if (k < forward) {
    const t = Math.floor(k / (net.layers + 1)), l = k % (net.layers + 1);
    pin(l < net.layers ? {q: "z", l, t, i} : {q: "y", l: 0, t, i: targetAt(t)});
  } else pin({q: "d", l: net.layers - 1 - (k - forward) % net.layers, t: T - 1 - Math.floor((k - forward) / net.layers), i});
  return k < last;
}
function stop() { clearInterval(state.timer); state.timer = null; $("play").textContent = say($("play").dataset.say = "play"); }
function play() {
  if (state.timer) return stop();
  if (state.walk === T * (2 * net.layers + 1) - 1) state.walk = null;
  state.timer = setInterval(() => walk(1) || stop(), 900);
  $("play").textContent = say($("play").dataset.say = "stop");
  walk(1);
}
function about() {
  const units = pageOf(), parts = [];
  if (net.H > PER_PAGE) parts.push(say("cut", {n: net.H, k: units.length, a: units[0] + 1, b: units.at(-1) + 1}));
  if (SHOWN.length < S) parts.push(say("cut_symbols", {n: S, k: SHOWN.length}));
  parts.push(data.command ? say("untrained", {command: `python -m src.train model=manual model.readout=linear … seed=${data.networks[state.which].seed}`}) : say("source", data));
  if (data.averaged) parts.push(say("averaged"));
  $("about").textContent = parts.join("");
}
function fillSelects() {
  const one = data.networks[state.which], unique = key => [...new Set(data.networks.map(other => other[key]))].sort((a, b) => a - b);
  options($("layers"), unique("layers").map(k => [k, k]), one.layers);
  options($("seed"), unique("seed").map(k => [k, k ?? "–"]), one.seed);
  options($("layer"), Array.from({length: net.layers}, (_, l) => [l, l + 1]), state.pinned.l);
  options($("units"), Array.from({length: Math.ceil(net.H / PER_PAGE)}, (_, k) => [k, `${k * PER_PAGE + 1}–${Math.min(net.H, (k + 1) * PER_PAGE)}`]), state.page);
  $("layers").closest("label").hidden = $("seed").closest("label").hidden = data.networks.length === 1;
  $("units").closest("label").hidden = net.H <= PER_PAGE;
}
function speak() {  // everything that is written in the reader's language
  document.documentElement.lang = state.language === "zh" ? "zh-Hans" : "en";
  for (const one of document.querySelectorAll("[data-say]")) one.textContent = say(one.dataset.say);
  for (const one of document.querySelectorAll("[data-label]")) { one.setAttribute("aria-label", say(one.dataset.label)); one.title = say(one.dataset.label); }
  $("title").textContent = document.title = say("title", data);
  $("intro").textContent = say("intro", {f: data.nonlinearity});
  $("keys").innerHTML = say("keys");
  $("quantities").replaceChildren(...[["z", "z"], ["h", "h"], ["d", "δ"], ["y", "ŷ"], ["e", "ŷ−y"]].map(([q, text]) => {
    const button = Object.assign(document.createElement("button"), {type: "button", value: q, textContent: text, title: say(q)});
    button.addEventListener("click", () => quantity(q));
    return button;
  }));
}

const on = (id, event, handle) => $(id).addEventListener(event, handle);
const other = () => data.networks.findIndex(one => one.layers === +$("layers").value && String(one.seed) === $("seed").value);
on("layers", "change", () => choose(other())); on("seed", "change", () => choose(other()));
on("layer", "change", () => { const key = state.pinned, q = "zhd".includes(key.q) ? key.q : "d"; state.walk = null; pin({q, l: +$("layer").value, t: key.t, i: q === key.q ? key.i : 0}, false); });
on("units", "change", () => { state.page = +$("units").value; build(); state.pinned.i = "zhd".includes(state.pinned.q) ? state.page * PER_PAGE : state.pinned.i; refresh(); });
on("language", "change", () => { state.language = $("language").value; speak(); build(); refresh(); });
on("left", "click", () => move(-1, 0)); on("right", "click", () => move(1, 0)); on("up", "click", () => move(0, -1)); on("down", "click", () => move(0, 1));
on("back", "click", () => { stop(); walk(-1); }); on("next", "click", () => { stop(); walk(1); }); on("play", "click", play);
on("matrix", "change", () => { const [name, l] = $("matrix").value.split(","); state.weight = [name, +l, 0, 0]; weigh(); });
for (const id of ["row", "column"]) on(id, "change", () => { state.weight = [state.weight[0], state.weight[1], +$("row").value, +$("column").value]; weigh(); });
on("weight", "input", () => set(state.weight, +$("weight").value));
on("update", "click", () => { update(net); state.updates++; n = compute(net); refresh(); });
on("reset", "click", () => choose(state.which));
for (const id of ["lines", "grid"]) on(id, "click", event => {
  const given = event.target.dataset.weight?.split(",");
  if (given) { state.weight = [given[0], ...given.slice(1).map(Number)]; weigh(); $("weight").focus(); }
});
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
  const keys = {ArrowLeft: () => move(-1, 0), ArrowRight: () => move(1, 0), ArrowUp: () => move(0, -1), ArrowDown: () => move(0, 1),
    z: () => quantity("z"), h: () => quantity("h"), d: () => quantity("d"), y: () => quantity("y"), e: () => quantity("e"),
    n: () => { stop(); walk(1); }, p: () => { stop(); walk(-1); }, " ": event.target.tagName === "BUTTON" ? null : play};
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
let seen = 0;
new ResizeObserver(() => { const width = $("stage").clientWidth; if (width !== seen) { seen = width; build(); refresh(); } }).observe($("stage"));
$("language").value = state.language;
speak();
choose(data.initial);
