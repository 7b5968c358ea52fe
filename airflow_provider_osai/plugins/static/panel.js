// The panel of one job: asks for it, draws it, and asks again while it runs.
"use strict";
(() => {
  const root = document.documentElement;
  const isDark = () => {
    try {
      const outer = window.parent.document.documentElement;
      if (outer.classList.contains("dark")) return true;
      if (outer.classList.contains("light")) return false;
    } catch { /* shown elsewhere than in Airflow */ }
    return window.matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const dress = () => root.classList.toggle("dark", isDark());
  dress();
  setInterval(dress, 1000);

  const main = document.querySelector("main[data-job]");
  if (!main) return;
  const make = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const plot = (title, rows, lines) => {
    const drawn = lines.filter(([key]) => rows.some((row) => row[key] !== null && row[key] !== undefined));
    if (!drawn.length) return null;
    const box = make("div", undefined, "plot");
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
    const series = drawn.map(([, label, stroke, dash]) => ({ label, stroke: colour(stroke), dash, width: 2, points: { show: rows.length < 3 } }));
    new uPlot({
      title, width: 420, height: 240, scales: { x: { time: false } }, axes: [axis, axis],
      series: [{ label: "epoch" }, ...series],
    }, [rows.map((row, at) => row.epoch ?? at + 1), ...drawn.map(([key]) => rows.map((row) => row[key] ?? null))], box);
    return box;
  };
  const show = (job) => {
    const parts = [];
    const head = make("h1", job.error ? "OSAI job" : `OSAI ${job.kind} ${job.id}`);
    if (job.state) head.append(make("span", job.state, `state ${job.state}`));
    parts.push(head);
    if (job.error) parts.push(make("p", job.error, "error"));
    if (job.progress !== null && job.progress !== undefined && !job.is_terminal) {
      const bar = make("progress");
      bar.value = job.progress;
      parts.push(bar);
    }
    const rows = job.history || [];
    if (rows.length) {
      const plots = make("div", undefined, "plots");
      plots.append(...[
        plot("Loss", rows, [["loss", "training", "--busy"], ["val_loss", "validation", "--bad", [6, 4]]]),
        plot("Accuracy", rows, [["accuracy", "training", "--busy"], ["val_accuracy", "validation", "--good", [6, 4]]]),
      ].filter(Boolean));
      parts.push(plots);
    }
    const facts = make("dl");
    for (const [name, value] of job.facts || []) facts.append(make("dt", name), make("dd", value));
    parts.push(facts);
    if (job.portal_url) {
      const link = make("a", "Open in the OSAI portal");
      Object.assign(link, { href: job.portal_url, target: "_blank", rel: "noopener noreferrer" });
      parts.push(link);
    }
    main.replaceChildren(...parts);
    main.dataset.shown = job.state || "error";
  };
  const ask = async () => {
    let wait = 3000;
    try {
      const answer = await fetch(main.dataset.job, { headers: { Accept: "application/json" } });
      if (answer.status === 401 || answer.status === 403) return show({ error: "You may not see this task." });
      const job = await answer.json();
      show(job);
      if (job.is_terminal) return;
      if (job.error) wait = 15000;
    } catch {
      wait = 15000;
    }
    setTimeout(ask, wait);
  };
  ask();
})();
