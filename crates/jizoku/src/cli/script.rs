//! Scripts: checking and formatting files, offline.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jizoku_script::check::{Checked, PartKind, check};
use jizoku_script::format::format;
use jizoku_script::limits::SOURCE_MAX;
use jizoku_script::offer::Offer;
use jizoku_script::permission::{Permissions, ROLES};
use jizoku_script::problem::{Report, line_and_column};
use serde_json::{Value, json};

use super::{Context, Failure};

/// `jizoku check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Scripts; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Check what this role may do: viewer, operator or admin.
    #[arg(long)]
    role: Option<String>,
}

/// `jizoku fmt`
#[derive(Debug, Args)]
pub(crate) struct Fmt {
    /// Scripts; `-` reads standard input and writes standard output.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Change nothing; fail if something would change.
    #[arg(long)]
    check: bool,
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let mut offer = Offer::unknown();
        if let Some(role) = &self.role {
            let permissions = Permissions::of_role(role).ok_or_else(|| {
                let known: Vec<&str> = ROLES.iter().map(|(name, ..)| *name).collect();
                format!("no role `{role}`; there are {}", known.join(", "))
            })?;
            offer = offer.for_role(role, permissions);
        }
        let mut right = true;
        let mut results = Vec::new();
        for file in &self.files {
            let text = read(file)?;
            let name = name(file);
            let checked = check(&text, &offer, None);
            right &= checked.problems.is_empty();
            if context.json {
                results.push(as_json(&name, &text, &checked));
            } else if checked.problems.is_empty() {
                print!("{}", summary(&name, &checked));
            } else {
                eprintln!("{}\n", Report::new(&name, &text, &checked.problems));
            }
        }
        if context.json {
            println!("{}", Value::from(results));
        }
        Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Fmt {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let mut straight = true;
        for file in &self.files {
            let text = read(file)?;
            let name = name(file);
            let made = match format(&text) {
                Ok(made) => made,
                Err(problems) => {
                    eprintln!("{}\n", Report::new(&name, &text, &problems));
                    straight = false;
                    continue;
                }
            };
            if self.check {
                if made != text {
                    println!("{name}");
                    straight = false;
                }
            } else if is_stdin(file) {
                std::io::stdout().write_all(made.as_bytes()).map_err(|error| error.to_string())?;
            } else if made != text {
                replace(file, &made)?;
            }
        }
        Ok(if straight { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

pub(super) fn name(file: &Path) -> String {
    if is_stdin(file) { "<stdin>".to_string() } else { file.display().to_string() }
}

/// A script's text; no more of it is read than a script may be long.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let most = SOURCE_MAX as u64 + 1;
    let result = if is_stdin(file) {
        std::io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    result.map_err(|error| Failure(format!("{}: {error}", name(file))))?;
    if bytes.len() > SOURCE_MAX {
        return Err(Failure(format!("{}: longer than {SOURCE_MAX} bytes", name(file))));
    }
    let text = String::from_utf8(bytes);
    text.map_err(|_| Failure(format!("{}: not a text in UTF-8", name(file))))
}

/// Replaces a file as a whole, so that an editor or a crash never sees half of it.
fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure(format!("{}: {error}", file.display()));
    // Through a link, the file that it leads to is replaced.
    let file = std::fs::canonicalize(file).map_err(failed)?;
    let mut beside = file.clone().into_os_string();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = std::fs::metadata(&file).and_then(|meta| {
        std::fs::write(&beside, text)?;
        std::fs::set_permissions(&beside, meta.permissions())?;
        std::fs::File::open(&beside)?.sync_all()?;
        std::fs::rename(&beside, &file)
    });
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        failed(error)
    })
}

/// What a right script holds, and what it needs.
fn summary(name: &str, checked: &Checked) -> String {
    let mut text = format!("{name}: no problems\n");
    for part in &checked.parts {
        let kind = word(part.kind);
        let needs: Vec<&str> = part.needs.iter().map(|permission| permission.name()).collect();
        let on = if part.targets.is_empty() {
            String::new()
        } else {
            format!("  on {}", part.targets.join(", "))
        };
        let needs = if needs.is_empty() { "nothing".to_string() } else { needs.join(", ") };
        text += &format!("  {kind:8} {:20} needs {needs}{on}\n", part.name);
    }
    text
}

fn word(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Task => "task",
        PartKind::Flow => "flow",
        PartKind::Monitor => "monitor",
        PartKind::Trigger => "trigger",
    }
}

fn as_json(name: &str, text: &str, checked: &Checked) -> Value {
    let problems = checked.problems.iter().map(|problem| {
        let (line, column) = line_and_column(text, problem.place.start as usize);
        json!({
            "line": line, "column": column,
            "start": problem.place.start, "end": problem.place.end,
            "message": problem.message, "hint": problem.hint,
        })
    });
    let parts = checked.parts.iter().map(|part| {
        let needs: Vec<&str> = part.needs.iter().map(|permission| permission.name()).collect();
        json!({
            "kind": word(part.kind), "name": part.name, "needs": needs,
            "targets": part.targets, "uses": part.uses,
        })
    });
    let (problems, parts): (Vec<Value>, Vec<Value>) = (problems.collect(), parts.collect());
    json!({ "file": name, "problems": problems, "parts": parts })
}
