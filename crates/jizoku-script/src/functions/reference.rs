//! The reference of all functions, for docs/script/functions.md: generated, so that it is true.

use alloc::format;
use alloc::string::String;

use super::{Function, Gives, Rest, all};
use crate::permission::{Permission, ROLES};
use crate::types::{
    DISK, FILE, MEMORY, NODE, OUTPUT, PROCESS, RECORD_FIELDS, RESPONSE, SERVICE, Shape, UNIT,
};

/// Every shape that a function gives, in the order of the docs.
static SHAPES: [&Shape; 9] =
    [&RESPONSE, &OUTPUT, &SERVICE, &UNIT, &PROCESS, &FILE, &MEMORY, &DISK, &NODE];

/// The page.
pub fn reference() -> String {
    let mut page = String::from(
        "# Functions\n\nGenerated from the table that the checker and the evaluator use \
         (`crates/jizoku-script/src/functions`); don't edit it.\n\nEvery argument may be given \
         by its name; those with a `?` may be left out. A call that fails ends the task as \
         Failed; `try` before it gives an absent value instead.\n",
    );
    let mut space = None;
    for function in all() {
        let mine = function.name.split_once('.').map_or("", |(space, _)| space);
        if space != Some(mine) {
            let title = if mine.is_empty() { "Values" } else { mine };
            page += &format!("\n## {title}\n\n| function | gives | needs | what it does |\n");
            page += "|---|---|---|---|\n";
            space = Some(mine);
        }
        let needs = function.needs.map_or("", Permission::name);
        page += &format!(
            "| `{}` | {} | {needs} | {} |\n",
            function.signature(),
            function.gives(),
            function.doc
        );
    }
    page += "\n## What they give\n\n| type | field | type of the field | what it is |\n";
    page += "|---|---|---|---|\n";
    let record = RECORD_FIELDS.iter().map(|field| ("a record", field));
    let shapes = SHAPES.iter().flat_map(|shape| shape.fields.iter().map(|f| (shape.name, f)));
    for (shape, (name, kind, doc)) in shapes.chain(record) {
        page += &format!("| {shape} | `{name}` | {kind} | {doc} |\n");
    }
    page += "\nRecords also have the fields that their event declares.\n";
    page += "\n## Permissions\n\n| permission | allows to |";
    for (role, ..) in ROLES {
        page += &format!(" {role} |");
    }
    page += "\n|---|---|---|---|---|\n";
    for permission in Permission::ALL {
        page += &format!("| {permission} | {} |", permission.doc());
        for (_, permissions, _) in ROLES {
            page += if permissions.allow(*permission) { " yes |" } else { " |" };
        }
        page += "\n";
    }
    page
}

impl Function {
    /// As in the docs: `http.get(url: str, within: duration?)`.
    pub fn signature(&self) -> String {
        let mut text = format!("{}(", self.name);
        for (at, param) in self.params.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let absent = if param.required { "" } else { "?" };
            text += &format!("{comma}{}: {}{absent}", param.name, param.kind);
        }
        text += match self.rest {
            Rest::Nothing => "",
            Rest::Environment => ", name: value, ...",
            Rest::Fields => ", field: value, ...",
            Rest::Filter => ", where filter",
        };
        text + ")"
    }

    /// What it gives, for people.
    pub fn gives(&self) -> String {
        match self.result {
            Gives::Value(kind) => format!("{kind}"),
            Gives::Element => "element?".into(),
            Gives::Same => "the same type".into(),
            Gives::Record => "record".into(),
            Gives::RecordIfAny => "record?".into(),
            Gives::Records => "[record]".into(),
        }
    }
}
