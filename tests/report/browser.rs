//! The page in a real browser: skipped with a message where there is no Chromium.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A headless Chromium that reaches nothing outside; `None`, with a message, where none is installed.
fn chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let found = names.iter().flat_map(|name| folders.iter().map(move |f| f.join(name))).find(|p| p.is_file());
    if found.is_none() {
        eprintln!("skipped: no Chromium on PATH");
    }
    found
}

/// What the script below wrote into the page, and what the browser said about errors.
fn visit(browser: &Path, page: &Path, profile: &Path) -> (String, String) {
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"])
        .args([
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ])
        .args([
            "--enable-logging=stderr",
            "--v=0",
            "--window-size=1280,900",
            "--virtual-time-budget=4000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Sorts a table by script as a reader would by hand, points at a mark, and writes what it saw into an element.
const PROBE: &str = r##"
<script>
addEventListener("load", () => {
  const seen = {};
  const table = document.getElementById("t-latency");
  const column = (name) => Array.from(table.tHead.rows[0].cells).findIndex((c) => c.textContent.startsWith(name));
  const values = (i) => Array.from(table.tBodies[0].rows, (r) => r.cells[i].dataset.v).filter((v) => v !== undefined).map(Number);
  const rising = (v) => v.every((x, i) => i === 0 || v[i - 1] <= x);
  const prefill = column("prefill");
  const change = column("against");
  seen.unsorted = !rising(values(prefill));
  const press = (i) => table.tHead.rows[0].cells[i].querySelector("button").click();
  press(prefill);
  seen.rising = rising(values(prefill));
  seen.aria = table.tHead.rows[0].cells[prefill].getAttribute("aria-sort");
  press(prefill);
  seen.falling = rising(values(prefill).reverse());
  press(change);
  const last = table.tBodies[0].rows[table.tBodies[0].rows.length - 1].cells[change];
  seen.emptyLast = last.querySelector(".none") !== null;
  const tip = document.getElementById("tip");
  seen.hiddenBefore = tip.hidden;
  const marks = document.querySelectorAll("#f-decode_vs_context .mark");
  seen.marks = marks.length;
  marks[0].scrollIntoView({ block: "center" });
  marks[0].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  seen.tip = tip.hidden ? "" : tip.textContent;
  const box = tip.getBoundingClientRect();
  seen.tipInside = box.left >= 0 && box.right <= innerWidth && box.top >= 0 && box.bottom <= innerHeight;
  document.body.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  seen.hiddenAfter = tip.hidden;
  const before = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  seen.themed = getComputedStyle(document.body).backgroundColor !== before;
  seen.overflow = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  // A text drawn wider than its picture would be cut off.
  seen.cut = Array.from(document.querySelectorAll(".panel svg")).filter((svg) => {
    const frame = svg.getBoundingClientRect();
    return Array.from(svg.querySelectorAll("text")).some((t) => {
      const b = t.getBoundingClientRect();
      return b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 || b.bottom > frame.bottom + 1;
    });
  }).length;
  const note = document.createElement("pre");
  note.id = "seen";
  note.textContent = JSON.stringify(seen);
  document.body.append(note);
});
</script>
"##;

#[test]
fn sorting_hovering_and_themes_work_without_an_error() {
    let Some(browser) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = crate::report::make(folder.path());
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    let probed = out.join("probed.html");
    std::fs::write(&probed, page.replace("</body>", &format!("{PROBE}</body>"))).unwrap();
    let (dom, log) = visit(&browser, &probed, &folder.path().join("profile"));
    let errors: Vec<&str> = log.lines().filter(|l| l.contains("CONSOLE")).collect();
    assert!(errors.is_empty(), "the console: {errors:?}");
    let seen = dom.split("<pre id=\"seen\">").nth(1).unwrap_or_else(|| panic!("the page did not run: {log}"));
    let seen = seen.split("</pre>").next().unwrap().replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&");
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    for flag in ["unsorted", "rising", "falling", "emptyLast", "hiddenBefore", "tipInside", "hiddenAfter", "themed"] {
        assert_eq!(seen[flag], true, "{flag}: {seen}");
    }
    assert_eq!(seen["aria"], "ascending");
    assert_eq!((&seen["overflow"], &seen["cut"]), (&false.into(), &0.into()), "{seen}");
    // Four caches at three context lengths; two more differ in the residual window only and are shown in its sweep.
    assert_eq!(seen["marks"], 12, "{seen}");
    let tip = seen["tip"].as_str().unwrap();
    assert!(tip.starts_with("Small-1B · FP16 · 1k tokens") && tip.contains("tokens/s"), "{tip}");
}
