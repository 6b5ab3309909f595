// Draws each table of days as a plot, and closes the table. Without this script the table is all there is, and open.
"use strict";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Idle is hatched like everywhere on our pages, so that it can be told without colours.
function hatched(plot) {
  const size = Math.round(8 * devicePixelRatio);
  const tile = Object.assign(document.createElement("canvas"), { width: size, height: size });
  const pen = tile.getContext("2d");
  pen.fillStyle = colour("--idle");
  pen.fillRect(0, 0, size, size);
  pen.strokeStyle = colour("--idle-line");
  pen.lineWidth = size / 4;
  for (const shift of [-size, 0, size]) {
    pen.beginPath();
    pen.moveTo(shift - 1, size + 1);
    pen.lineTo(shift + size + 1, -1);
    pen.stroke();
  }
  return plot.ctx.createPattern(tile, "repeat");
}

function draw(table) {
  const place = table.closest("figure").querySelector(".plot");
  const days = [...table.querySelectorAll("tr[data-day]")].reverse();
  const data = [
    days.map((row) => Date.parse(row.dataset.day) / 1000),
    days.map((row) => Number(row.dataset.spent)),
    days.map((row) => Number(row.dataset.idle) || null),
  ];
  const money = new Intl.NumberFormat("en", { style: "currency", currency: table.dataset.currency, notation: "compact", maximumSignificantDigits: 3 });
  const exact = new Intl.NumberFormat("en", { style: "currency", currency: table.dataset.currency });
  const day = (at) => new Date(at * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
  const sum = (amounts) => exact.format(amounts.reduce((all, one) => all + one, 0));
  const told = (plot, amount, series, at) => (at === null ? sum(plot.data[series]) : exact.format(amount ?? 0));
  const bars = uPlot.paths.bars({ size: [0.72, 48] });
  const axis = { stroke: () => colour("--quiet"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false }, font: "13px system-ui, sans-serif" };
  const size = () => ({ width: place.clientWidth, height: Math.min(280, Math.max(200, place.clientWidth / 2.4)) });
  place.hidden = false;
  const plot = new uPlot(
    {
      ...size(),
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "UTC"),
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { x: { range: (_, low, high) => [low - 43200, high + 43200] }, y: { range: (_, low, high) => [0, (high || 1) * 1.05] } },
      axes: [
        { ...axis, grid: { show: false }, space: 56, incrs: [1, 2, 5, 7, 14].map((days) => days * 86400), values: (_, at) => at.map(day) },
        { ...axis, size: 58, values: (_, amounts) => amounts.map((amount) => money.format(amount)) },
      ],
      series: [
        { label: "Day", value: (_, at) => (at === null ? `all ${days.length}` : day(at)) },
        { label: "Spent", paths: bars, points: { show: false }, width: 1, stroke: () => colour("--strong"), fill: () => colour("--spent"), value: told },
        { label: "Of that, idle", paths: bars, points: { show: false }, width: 1, stroke: () => colour("--idle-line"), fill: hatched, value: told },
      ],
      legend: { markers: { width: 1, fill: (_, index) => (index === 2 ? `repeating-linear-gradient(-45deg, ${colour("--idle")} 0 4px, ${colour("--idle-line")} 4px 6px)` : colour("--spent")) } },
    },
    data,
    place,
  );
  table.closest("details").open = false;
  addEventListener("resize", () => plot.setSize(size()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw());
}

document.querySelectorAll("table[data-currency]").forEach(draw);
