// The job page: fetches a job, renders it, and polls it until it has ended.
"use strict";
(() => {
  const root = document.documentElement;
  const isDark = () => {
    try {
      const outer = window.parent.document.documentElement;
      if (outer.classList.contains("dark")) return true;
      if (outer.classList.contains("light")) return false;
    } catch { /* not embedded in Airflow's UI */ }
    return window.matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const applyTheme = () => root.classList.toggle("dark", isDark());
  applyTheme();
  setInterval(applyTheme, 1000);

  const main = document.querySelector("main[data-job]");
  if (!main) return;
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const plot = (title, rows, lines) => {
    const available = lines.filter(([key]) => rows.some((row) => row[key] !== null && row[key] !== undefined));
    if (!available.length) return null;
    const box = make("div", undefined, "plot");
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
    const series = available.map(([, label, stroke, dash]) => ({ label, stroke: colour(stroke), dash, width: 2, points: { show: rows.length < 3 } }));
    new uPlot({
      title, width: 420, height: 240, scales: { x: { time: false } }, axes: [axis, axis],
      series: [{ label: "epoch" }, ...series],
    }, [rows.map((row, index) => row.epoch ?? index + 1), ...available.map(([key]) => rows.map((row) => row[key] ?? null))], box);
    return box;
  };
  const show = (job) => {
    const parts = [];
    const head = make("h1", job.error ? "OSAI job" : `OSAI ${job.kind} ${job.id}`);
    if (job.state) head.append(make("span", job.state, `state ${job.state}`));
    if (job.simulated) {
      const badge = make("span", "simulated", "badge");
      badge.title = "The sandbox only simulated this job: its result is not real.";
      head.append(badge);
    }
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
    for (const note of job.notes || []) parts.push(make("p", `The response differs from the contract: ${note}`, "note"));
    if (job.portal_url) {
      const link = make("a", "Open in the OSAI portal");
      Object.assign(link, { href: job.portal_url, target: "_blank", rel: "noopener noreferrer" });
      parts.push(link);
    }
    main.replaceChildren(...parts);
    main.dataset.shown = job.state || "error";
  };
  const poll = async () => {
    let delay = 3000;
    try {
      const response = await fetch(main.dataset.job, { headers: { Accept: "application/json" } });
      if (response.status === 401 || response.status === 403) return show({ error: "You are not allowed to read this task." });
      const job = await response.json();
      show(job);
      if (job.is_terminal) return;
      if (job.error) delay = 15000;
    } catch {
      delay = 15000;
    }
    setTimeout(poll, delay);
  };
  poll();
})();
