// The trace viewer: what a controller did on a question, move by move, beside what another did. Nothing is fetched.
"use strict";
(() => {
  const COLOURS = 8; // answers with a colour of their own; the others share one
  const byId = (id) => document.getElementById(`watch-${id}`);
  const questions = JSON.parse(byId("data").textContent);
  const pick = { question: byId("question"), left: byId("left"), right: byId("right"), clock: byId("clock") };
  const slider = byId("time");
  const sides = ["left", "right"].map((name) => {
    const box = byId(`${name}-side`);
    const part = (selector) => box.querySelector(selector);
    const [lanes, vote] = [part("canvas.lanes"), part("canvas.vote")];
    return { box, lanes, vote, title: part("h3"), knobs: part(".knobs"), stand: part(".stand"), lane: part(".lane") };
  });
  let episodes = []; // of the question, one a trace
  let shown = []; // the one or two that are looked at, as [side, episode]
  let colours = {};
  let rank = []; // answer number -> colour number
  let playing = 0;

  async function unpack(base64) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return JSON.parse(await new Response(stream).text());
  }

  // Columns to lanes: what each branch did, and how many branches show each answer after each event.
  function episodeOf(columns, told) {
    const lanes = [];
    const tallies = [];
    const tally = new Map();
    const count = (answer, by) => tally.set(answer, (tally.get(answer) ?? 0) + by);
    let reading = 0;
    columns.verb.forEach((_, event) => {
      for (const branch of columns.pruned[event]) {
        lanes[branch].pruned = event;
        count(lanes[branch].answer, -1);
      }
      for (let k = 0; k < columns.moved[event]; k++, reading++) {
        const lane = (lanes[columns.branch[reading]] ??= {
          opened: event, pruned: Infinity, ended: Infinity, answer: -1, depth: 0, tokens: 0, parts: [],
        });
        if (lane.parts.length) count(lane.answer, -1);
        const [answer, ended] = [columns.answer[reading], columns.ended[reading] > 0];
        const from = lane.depth;
        lane.depth += columns.steps[reading];
        lane.tokens += columns.spent[reading];
        if (answer >= 0 || ended) lane.answer = answer;
        if (ended) [lane.ended, lane.cut] = [event, columns.ended[reading] === 2];
        count(lane.answer, 1);
        const probed = answer >= 0 && !ended;
        lane.parts.push({ event, from, to: lane.depth, answer: lane.answer, probed, ended, tokens: lane.tokens });
      }
      tallies.push(new Map(tally));
    });
    for (let branch = 0; branch < lanes.length; branch++) { // of a wave that was cut short, some were not read
      lanes[branch] ??= { opened: Infinity, pruned: Infinity, ended: Infinity, answer: -1, depth: 0, tokens: 0, parts: [] };
    }
    const last = columns.verb.length - 1;
    return { ...told, columns, lanes, tallies, last, result: columns.result[0], depth: Math.max(0, ...lanes.map((l) => l.depth)) };
  }

  const answerText = (question, answer) => (answer < 0 ? "no answer" : question.answers[answer]);
  const current = () => questions[pick.question.selectedIndex];

  // The answers that most branches end with come first; the gold one and those decided on are always among them.
  function rankAnswers(question) {
    const weight = new Array(question.answers.length).fill(0);
    for (const episode of episodes) {
      for (const lane of episode.lanes) if (lane.answer >= 0) weight[lane.answer] += 1;
      if (episode.result >= 0) weight[episode.result] += 1e6;
    }
    const order = weight.map((_, answer) => answer);
    order.sort((a, b) => weight[b] - weight[a]);
    rank = new Array(weight.length);
    order.forEach((answer, place) => (rank[answer] = Math.min(place, COLOURS)));
    const place = (answer) => (answer < 0 ? COLOURS + 1 : rank[answer]);
    for (const episode of episodes) {
      episode.stacks = episode.tallies.map((tally) => stackOf(tally, place));
    }
    const list = byId("answers");
    list.replaceChildren();
    order.slice(0, COLOURS).forEach((answer, place) => {
      const right = question.right.includes(answer) ? " ✓ gold" : "";
      list.append(key(`var(--w-${place})`, question.answers[answer] + right));
    });
    if (order.length > COLOURS) list.append(key("var(--w-rest)", `${order.length - COLOURS} others`));
    list.append(key("var(--w-none)", "no answer yet"));
  }

  // A tally as [answer, count] in the order of colours, the answers that share one taken together.
  function stackOf(tally, place) {
    const stack = new Map();
    for (const [answer, count] of tally) {
      const [, before] = stack.get(place(answer)) ?? [answer, 0];
      if (count) stack.set(place(answer), [answer, before + count]);
    }
    return [...stack].sort(([a], [b]) => a - b).map(([, entry]) => entry);
  }

  function key(colour, text) {
    const item = document.createElement("li");
    const mark = document.createElement("i");
    mark.style.background = colour;
    item.append(mark, text);
    item.title = text;
    return item;
  }

  function readColours() {
    const style = getComputedStyle(byId("sides"));
    const get = (name) => style.getPropertyValue(`--w-${name}`).trim();
    for (const name of ["ink", "soft", "line", "ground", "none", "rest", "shade", "accent"]) colours[name] = get(name);
    colours.answers = [...Array(COLOURS).keys()].map(get).concat(colours.rest);
  }

  const colourOf = (answer) => (answer < 0 ? colours.none : colours.answers[rank[answer]]);
  const most = (value) => Math.max(...shown.map(([, episode]) => value(episode)));
  const clock = () => (pick.clock.value === "tokens" ? most((e) => e.columns.tokens[e.last]) : most((e) => e.last));
  const timeOf = (episode, event) => (pick.clock.value === "tokens" ? episode.columns.tokens[event] : event);

  // The last event that has happened at the slider's time; the first one at the least.
  function eventAt(episode) {
    const now = slider.valueAsNumber;
    let [low, high] = [0, episode.last];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (timeOf(episode, middle) <= now) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  function canvasOf(canvas, height) {
    const scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      canvas.style.height = `${height}px`;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    return [pen, width];
  }

  const GUTTER = 30;
  function shape() {
    const rows = most((episode) => episode.lanes.length);
    const height = Math.max(5, Math.min(18, Math.floor(460 / rows)));
    return { row: height, rows, depth: most((episode) => episode.depth) };
  }

  function drawLanes(side, episode, event) {
    const { row, rows, depth } = shape();
    const [pen, width] = canvasOf(side.lanes, rows * row + 8);
    const unit = (width - GUTTER - 14) / depth;
    const golds = current().right;
    const body = Math.max(2, row - 2);
    const gap = unit > 5 ? 1 : 0; // between the steps of a lane, where there is room; else like steps are drawn as one
    const dot = unit > 5 && row > 5 ? 2.4 : 1;
    const probes = new Path2D();
    pen.textBaseline = "middle";
    episode.lanes.forEach((lane, branch) => {
      const top = 4 + branch * row;
      const middle = top + row / 2;
      if (branch === side.chosen) {
        pen.fillStyle = colours.shade;
        pen.fillRect(0, top, width, row);
      }
      if (lane.opened > event) return;
      const pruned = lane.pruned <= event;
      pen.globalAlpha = pruned ? 0.4 : 1;
      let reached;
      let run = { from: 0, to: 0, answer: lane.parts[0].answer };
      const fill = () => {
        pen.fillStyle = colourOf(run.answer);
        pen.fillRect(GUTTER + run.from * unit, top + 1, (run.to - run.from) * unit - gap, body);
      };
      for (const part of lane.parts) {
        if (part.event > event) break;
        reached = part;
        if (gap || part.answer !== run.answer) {
          if (run.to > run.from) fill();
          run = { from: part.from, answer: part.answer };
        }
        run.to = part.to;
        if (part.probed) probes.rect(GUTTER + part.to * unit - dot - 1.5, middle - dot / 2, dot, dot);
      }
      fill();
      pen.globalAlpha = 1;
      const end = GUTTER + reached.to * unit;
      if (row >= 9 && branch % (row >= 12 ? 1 : 2) === 0) label(pen, String(branch), GUTTER - 14, middle, colours.soft, row);
      else if (branch % 8 === 0) label(pen, String(branch), GUTTER - 14, middle, colours.soft, 10);
      if (reached.event === event) {
        pen.strokeStyle = colours.ink;
        pen.lineWidth = 1;
        pen.strokeRect(GUTTER + reached.from * unit + 0.5, top + 1.5, Math.max(1, (reached.to - reached.from) * unit - 2), body - 1);
      }
      if (lane.opened === event) label(pen, "▸", GUTTER - 3, middle, colours.ink, 11);
      if (pruned) label(pen, "✕", end + 10, middle, lane.pruned === event ? colours.ink : colours.soft, Math.min(11, row + 2));
      else if (lane.ended <= event) {
        const right = golds.includes(lane.answer);
        const radius = Math.min(4, body / 2);
        pen.beginPath();
        pen.arc(end + 5, middle, radius, 0, 7);
        pen.fillStyle = right ? colourOf(lane.answer) : colours.ground;
        pen.strokeStyle = colourOf(lane.answer);
        pen.lineWidth = 1.4;
        pen.fill();
        pen.stroke();
      } else if (event === episode.last) {
        pen.strokeStyle = colours.soft;
        pen.lineWidth = 1.2;
        pen.strokeRect(end + 2, middle - body / 2 + 1, 4, body - 2);
      }
    });
    pen.fillStyle = colours.ground;
    pen.fill(probes);
  }

  function label(pen, text, right, middle, colour, size) {
    pen.font = `${Math.min(11, size)}px system-ui, sans-serif`;
    pen.textAlign = "right";
    pen.fillStyle = colour;
    pen.fillText(text, right, middle + 0.5);
  }

  // Columns of shown answers over time, and the confidence of the pool's vote as a line over them.
  function drawVote(side, episode, event) {
    const height = 110;
    const [pen, width] = canvasOf(side.vote, height);
    const total = Math.max(1, clock());
    const rows = shape().rows;
    const span = width - GUTTER - 14;
    const x = (e) => GUTTER + (timeOf(episode, e) / total) * span;
    const scale = (height - 12) / rows;
    for (let e = 0; e <= event; e++) {
      const left = e === 0 ? GUTTER : x(e - 1);
      let bottom = height - 6;
      for (const [answer, count] of episode.stacks[e]) {
        pen.fillStyle = colourOf(answer);
        pen.fillRect(left, bottom - count * scale, Math.max(1, x(e) - left - (x(e) - left > 4 ? 0.5 : 0)), count * scale);
        bottom -= count * scale;
      }
    }
    pen.beginPath();
    pen.moveTo(GUTTER, height - 6);
    for (let e = 0; e <= event; e++) pen.lineTo(x(e), height - 6 - episode.columns.confidence[e] * (height - 12));
    pen.lineWidth = 4;
    pen.strokeStyle = colours.ground;
    pen.stroke();
    pen.lineWidth = 2;
    pen.strokeStyle = colours.ink;
    pen.stroke();
    if (event === episode.last) {
      pen.setLineDash([3, 3]);
      pen.beginPath();
      pen.moveTo(x(event), 0);
      pen.lineTo(x(event), height);
      pen.stroke();
      pen.setLineDash([]);
    }
    label(pen, "1", GUTTER - 6, 8, colours.soft, 11);
    label(pen, "0", GUTTER - 6, height - 8, colours.soft, 11);
  }

  function stand(side, episode, event) {
    const c = episode.columns;
    const question = current();
    const many = (value) => value.toLocaleString("en");
    let text = `move ${event + 1} of ${episode.last + 1} · ${many(c.tokens[event])} tokens · ${c.live[event]} live`;
    text += c.leader[event] < 0
      ? " · nobody has finished"
      : ` · vote ${answerText(question, c.leader[event])} ${c.votes[event]}:${c.second[event]}, confidence ${c.confidence[event].toFixed(2)}`;
    if (event === episode.last) {
      const right = question.gold === null ? "" : question.right.includes(episode.result) ? " ✓" : " ✗";
      text += ` · STOP: answers ${answerText(question, episode.result)}${right}`;
    }
    side.stand.textContent = text;
    side.lanes.setAttribute("aria-label", `${episode.label}: ${episode.lanes.length} branches. ${text}`);
    side.vote.setAttribute("aria-label", `${episode.label}: vote over time. ${text}`);
    side.lane.textContent = laneText(side, episode, event) || "\u00a0";
  }

  function laneText(side, episode, event) {
    const lane = episode.lanes[side.chosen];
    if (!lane) return "";
    if (lane.opened > event) return `branch ${side.chosen}: not opened yet`;
    const part = lane.parts.findLast((p) => p.event <= event);
    const fate = lane.pruned <= event ? "pruned" : lane.ended <= event ? (lane.cut ? "ended at its limit" : "ended") : event === episode.last ? "cut off" : "live";
    const opened = `opened in move ${lane.opened + 1}`;
    return `branch ${side.chosen}: ${opened}, depth ${part.to}, ${part.tokens.toLocaleString("en")} tokens, shows ${answerText(current(), part.answer)}, ${fate}`;
  }

  let due = 0;
  function draw() {
    due ||= requestAnimationFrame(() => {
      due = 0;
      drawNow();
    });
  }

  function drawNow() {
    for (const [side, episode] of shown) {
      const event = eventAt(episode);
      drawLanes(side, episode, event);
      drawVote(side, episode, event);
      stand(side, episode, event);
    }
  }

  function choose() {
    const chosen = [pick.left, pick.right].map((select) => episodes[select.selectedIndex]);
    const two = chosen[1] && chosen[1] !== chosen[0];
    shown = two ? [[sides[0], chosen[0]], [sides[1], chosen[1]]] : [[sides[0], chosen[0]]];
    byId("sides").classList.toggle("one", !two);
    sides[1].box.hidden = !two;
    for (const [side, episode] of shown) {
      side.title.textContent = episode.label;
      side.knobs.textContent = side.knobs.title = episode.knobs;
    }
    const share = slider.valueAsNumber / Number(slider.max);
    slider.max = clock();
    slider.value = Math.round(share * clock());
    draw();
  }

  async function load(start) {
    const question = current();
    const columns = await unpack(question.data);
    if (question !== current()) return; // another one was chosen meanwhile
    episodes = columns.map((column, number) => episodeOf(column, question.traces[number]));
    const labels = question.traces.map((trace) => trace.label);
    for (const [select, otherwise] of [[pick.left, 0], [pick.right, Math.min(1, labels.length - 1)]]) {
      const kept = labels.indexOf(select.value);
      select.replaceChildren(...labels.map((name) => new Option(name)));
      select.selectedIndex = kept >= 0 ? kept : otherwise;
    }
    pick.right.parentElement.hidden = labels.length < 2;
    byId("gold").textContent = question.gold === null ? "question" : `question (gold answer ${question.gold})`;
    byId("text").textContent = question.text || question.name;
    for (const side of sides) side.chosen = -1;
    readColours();
    rankAnswers(question);
    choose();
    if (start) slider.value = slider.max;
    drawNow();
    document.documentElement.dataset.watch = question.name; // for whoever waits for it
  }

  // One move of whichever episode moves next, forward or back.
  function step(by) {
    const now = slider.valueAsNumber;
    const all = shown.flatMap(([, e]) => e.columns.verb.map((_, event) => (event === 0 ? 0 : timeOf(e, event))));
    const times = all.filter((time) => (by > 0 ? time > now : time < now));
    if (times.length) slider.value = by > 0 ? Math.min(...times) : Math.max(...times);
    draw();
  }

  function play(on) {
    cancelAnimationFrame(playing);
    playing = 0;
    byId("play").setAttribute("aria-pressed", String(on));
    for (const side of sides) side.stand.setAttribute("aria-live", on ? "off" : "polite"); // not sixty times a second
    byId("play").textContent = on ? "❚❚ pause" : "▶ play";
    if (!on) return;
    if (slider.value === slider.max) slider.value = 0;
    const seconds = 8;
    const from = slider.valueAsNumber;
    let first;
    const frame = (time) => {
      first ??= time;
      slider.value = Math.min(clock(), from + ((time - first) / 1000 / seconds) * clock());
      drawNow();
      if (slider.valueAsNumber >= clock()) play(false);
      else playing = requestAnimationFrame(frame);
    };
    playing = requestAnimationFrame(frame);
  }

  function other(by) {
    pick.question.selectedIndex = (pick.question.selectedIndex + by + questions.length) % questions.length;
    load(true);
  }

  function open(name) {
    pick.question.selectedIndex = questions.findIndex((question) => question.name === name);
    load(true);
    byId("title").scrollIntoView({ behavior: "smooth" });
    slider.focus({ preventScroll: true });
  }

  function branchAt(side, event) {
    return Math.floor((event.offsetY - 4) / shape().row);
  }

  pick.question.replaceChildren(...questions.map((question) => new Option(question.name)));
  pick.question.addEventListener("change", () => load(true));
  for (const select of [pick.left, pick.right, pick.clock]) select.addEventListener("change", choose);
  byId("before").addEventListener("click", () => other(-1));
  byId("after").addEventListener("click", () => other(1));
  byId("play").addEventListener("click", () => play(!playing));
  slider.addEventListener("input", () => {
    play(false);
    draw();
  });
  for (const side of sides) {
    const select = (branch) => {
      side.chosen = branch;
      draw();
    };
    side.lanes.addEventListener("pointermove", (event) => select(branchAt(side, event)));
    side.lanes.addEventListener("pointerleave", () => select(-1));
    side.lanes.addEventListener("keydown", (event) => {
      const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const rows = shown.find(([mine]) => mine === side)[1].lanes.length;
      select((Math.max(-1, side.chosen) + by + rows) % rows);
    });
  }
  byId("sides").parentElement.addEventListener("keydown", (event) => {
    if (event.target.matches("select, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
    const deeds = {
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      Home: () => { slider.value = 0; draw(); },
      End: () => { slider.value = slider.max; draw(); },
      "[": () => other(-1),
      "]": () => other(1),
    };
    if (!event.target.matches("button")) deeds[" "] = () => play(!playing);
    const deed = deeds[event.key];
    if (!deed) return;
    event.preventDefault();
    if (event.key !== " ") play(false);
    deed();
  });
  document.addEventListener("click", (event) => {
    const name = event.target.dataset?.question;
    if (name !== undefined) open(name);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    draw();
  });
  new ResizeObserver(draw).observe(byId("sides"));
  load(true);
})();
