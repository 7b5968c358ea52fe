// Draws the charts: curves by epoch, and the history of a model by time. Each fills its column and follows its width.
"use strict";
(() => {
  const HEIGHT = 240;
  const COLORS = ["--busy", "--warn", "--good", "--bad", "--wait"];
  const charts = new Map();
  // A color such as color-mix(...) is only resolved as the value of a property.
  const probe = document.createElement("span");
  const color = (name) => {
    document.body.append(probe);
    probe.style.color = `var(${name})`;
    const resolved = getComputedStyle(probe).color;
    probe.remove();
    return resolved;
  };
  const format = (value) => (value === null || value === undefined ? "-" : String(Number(value.toPrecision(5))));
  // Where nothing is hovered, the legend has the latest values.
  const number = (plot, value, series, index) => format(index === null ? plot.data[series].findLast((each) => each !== null) : value);
  const axis = (more) => ({ stroke: color("--dim"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line"), width: 1 }, ...more });

  const curves = (chart) => ({
    title: chart.title,
    scales: { x: { time: false } },
    axes: [axis({ size: 36 }), axis({ size: 56 })],
    series: [
      { label: "epoch", value: number },
      ...chart.series.map((each, index) => ({
        label: each.label, stroke: color(COLORS[index]), width: 2, dash: index ? [6, 4] : undefined, value: number,
        points: { show: chart.x.length < 3 }, spanGaps: true,
      })),
    ],
  });

  const POINTS = { promoted: "--good", rejected: "--bad", "rolled back": "--wait" };
  const history = (chart) => ({
    title: chart.title,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), window.osaiTimezone()),
    scales: { x: { range: (_, min, max) => [min - Math.max((max - min) / 30, 1), max + Math.max((max - min) / 30, 1)] } },
    axes: [
      axis({ size: 36, space: 110, values: (_, splits, __, ___, step) => splits.map((seconds) => window.osaiTime(new Date(seconds * 1000)).slice(...(step < 60 ? [11, 19] : [5, 16]))) }),
      axis({ size: 56 }),
    ],
    series: [
      { label: "time", value: (_, value, __, index) => {
        const at = index === null ? chart.x.length - 1 : index;
        return `${window.osaiTime(new Date(chart.x[at] * 1000))} ${chart.labels[at]}`;
      } },
      { label: "champion", stroke: color("--busy"), width: 2, value: number, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } },
      ...chart.points.map((each) => ({
        label: each.label, stroke: color(POINTS[each.label]), value: number, paths: () => null,
        points: { show: true, size: 10, fill: color(POINTS[each.label]) },
      })),
    ],
  });

  const data = (chart) => [chart.x, ...(chart.series ? [] : [chart.champion]), ...(chart.series || chart.points).map((each) => each.values)];

  const draw = (figure) => {
    const text = figure.dataset.chart;
    const chart = JSON.parse(text);
    const known = charts.get(figure);
    if (known && known.text === text && known.dark === document.documentElement.classList.contains("dark")) return;
    const width = Math.max(figure.clientWidth - 16, 200);
    const shape = JSON.stringify([chart.title, (chart.series || chart.points).map((each) => each.label)]);
    const dark = document.documentElement.classList.contains("dark");
    if (known && known.shape === shape && known.dark === dark && chart.series) {
      known.plot.setData(data(chart));
      known.text = text;
      return;
    }
    if (known) known.plot.destroy();
    figure.replaceChildren();
    const options = chart.series ? curves(chart) : history(chart);
    const plot = new uPlot({ ...options, width, height: HEIGHT, cursor: { points: { size: 8 } } }, data(chart), figure);
    charts.set(figure, { plot, text, shape, dark });
  };

  const resize = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const known = charts.get(target);
      const width = Math.max(target.clientWidth - 16, 200);
      if (known && Math.abs(known.plot.width - width) > 1) known.plot.setSize({ width, height: HEIGHT });
    }
  });

  // Draws the charts of the page, and takes over those of a newer version of it.
  window.osaiDrawCharts = (newer) => {
    const section = document.querySelector("[data-charts]");
    if (!section) return;
    if (newer) {
      const figures = [...newer.querySelectorAll("[data-chart]")];
      const shown = [...section.querySelectorAll("[data-chart]")];
      figures.forEach((figure, index) => {
        if (shown[index]) shown[index].dataset.chart = figure.dataset.chart;
        else section.append(document.importNode(figure, true));
      });
      shown.slice(figures.length).forEach((figure) => figure.remove());
    }
    for (const figure of section.querySelectorAll("[data-chart]")) {
      draw(figure);
      resize.observe(figure);
    }
  };
})();
