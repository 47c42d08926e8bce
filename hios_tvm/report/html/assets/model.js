// The data of the page, with the indices that the pictures need.

const report = JSON.parse(byId("report-data").textContent);
const operators = report.operators;
const copies = report.copies;

// Events become objects; `item` is "o12" or "c3": an operator or a copy, whatever the timeline.
const timelines = report.timelines.map((timeline) => {
  const events = timeline.events.map(([isCopy, subject, start, end, stream]) => ({
    isCopy, subject, start, end, stream, item: (isCopy ? "c" : "o") + subject,
  }));
  const ofItem = new Map(events.map((event) => [event.item, event]));
  const chain = new Set(timeline.chain.events.map((index) => events[index].item));
  return { origin: timeline.origin, makespan: timeline.makespan_us, events, ofItem, chain };
});
const lastTimeline = timelines[timelines.length - 1];
const spanUs = Math.max(1e-9, report.lower_bound_us, ...timelines.map((one) => one.makespan));

const sources = operators.map(() => []);
const targets = operators.map(() => []);
for (const [source, target] of report.edges) {
  targets[source].push(target);
  sources[target].push(source);
}

// Stages of several groups; those of one group need no mark.
const streamsOfStage = new Map();
operators.forEach((operator) => {
  if (operator.stage === undefined || operator.stage === null) return;
  const key = operator.device + ":" + operator.stage;
  if (!streamsOfStage.has(key)) streamsOfStage.set(key, new Set());
  streamsOfStage.get(key).add(operator.stream);
});
const hasStages = streamsOfStage.size > 0;

function stageKey(operator) {
  return operator.stage === undefined || operator.stage === null ? null : operator.device + ":" + operator.stage;
}

function isOfStage(item, key) {
  return key !== null && item[0] === "o" && stageKey(operators[+item.slice(1)]) === key;
}

function nameOf(item) {
  const index = +item.slice(1);
  return item[0] === "o" ? operators[index].name : "copy of " + copies[index].name;
}

function placeOf(item) {
  const index = +item.slice(1);
  if (item[0] === "c") return report.devices[copies[index].src].name + " → " + report.devices[copies[index].dst].name;
  const operator = operators[index];
  const device = report.devices[operator.device];
  let place = device.name;
  if (device.streams > 1) place += ", stream " + operator.stream;
  if (stageKey(operator) !== null) place += ", stage " + operator.stage;
  return place;
}

const longestSolo = Math.max(1e-9, ...operators.map((operator) => operator.solo_us));
// What every name starts with tells nothing in a narrow bar.
const shortNames = operators.map((operator) => operator.name.replace(/^(fused|tvmgen_default_fused)_/, ""));
const hasOneKind = Object.keys(report.kinds).length === 1;
