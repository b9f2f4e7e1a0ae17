//! The tree: what a script says. Names are places; their text is looked up in the script's.
//!
//! What it does not know: whether any of it makes sense.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::problem::Place;

/// A whole file.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) items: Vec<Item>,
}

#[derive(Debug)]
pub(crate) enum Item {
    Event(Event),
    Task(Task),
    Flow(Flow),
    Monitor(Monitor),
    Trigger(Trigger),
}

/// `event web.up { port: int }`
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: Place,
    pub(crate) fields: Vec<Param>,
}

/// `port: int`, `port: int = 8080`
#[derive(Debug)]
pub(crate) struct Param {
    pub(crate) name: Place,
    pub(crate) kind: TypeName,
    pub(crate) default: Option<Expr>,
}

#[derive(Debug)]
pub(crate) enum TypeName {
    Named(Place),
    List(Box<TypeName>),
    Optional(Box<TypeName>),
}

/// `task restart(port: int) idempotent { ... }`
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) name: Place,
    pub(crate) params: Vec<Param>,
    pub(crate) idempotent: bool,
    pub(crate) body: Block,
}

#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) stmts: Vec<Stmt>,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) struct Stmt {
    pub(crate) kind: StmtKind,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) enum StmtKind {
    Let {
        variable: bool,
        name: Place,
        kind: Option<TypeName>,
        value: Expr,
        otherwise: Option<Block>,
    },
    Assign {
        name: Place,
        value: Expr,
    },
    If(If<Block>),
    For {
        name: Place,
        list: Expr,
        body: Block,
    },
    Break,
    Continue,
    Return,
    Ensure {
        condition: Expr,
        message: Option<Expr>,
    },
    Fail(Expr),
    Expr(Expr),
}

/// `if a { } else if b { } else { }`
#[derive(Debug)]
pub(crate) struct If<B> {
    pub(crate) arms: Vec<(Condition, B)>,
    pub(crate) otherwise: Option<B>,
}

#[derive(Debug)]
pub(crate) enum Condition {
    Holds(Expr),
    /// `if let name = value`
    Present {
        name: Place,
        value: Expr,
    },
}

#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) enum ExprKind {
    Bool(bool),
    Int(i64),
    Float(f64),
    Duration(u64),
    Size(u64),
    None,
    /// `"a {b} c"`
    Text(Vec<Piece>),
    List(Vec<Expr>),
    Name,
    Field(Box<Expr>, Place),
    Index(Box<Expr>, Box<Expr>),
    Call(Box<Call>),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    /// `try call()`: absent if the call fails.
    Try(Box<Expr>),
    /// Something that was reported already.
    Wrong,
}

#[derive(Debug)]
pub(crate) enum Piece {
    Text(String),
    Value(Expr),
}

/// `space.name(value, name: value, where filter)`
#[derive(Debug)]
pub(crate) struct Call {
    /// The whole name, with its dot.
    pub(crate) name: Place,
    pub(crate) args: Vec<Arg>,
    pub(crate) filter: Option<Place>,
}

#[derive(Debug)]
pub(crate) struct Arg {
    pub(crate) name: Option<Place>,
    pub(crate) value: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Not,
    Minus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Otherwise,
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Has,
    Matches,
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

/// `flow heal(port: int) synchronised within 5m { ... }`
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) name: Place,
    pub(crate) params: Vec<Param>,
    pub(crate) synchronised: bool,
    pub(crate) within: Option<Expr>,
    pub(crate) body: Vec<Step>,
    pub(crate) failure: Option<Failure>,
}

/// What a step does if it fails.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Go on after it, if it succeeds.
    pub(crate) recovers: bool,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) kind: StepKind,
    pub(crate) within: Option<Expr>,
    pub(crate) failure: Option<Failure>,
}

#[derive(Debug)]
pub(crate) enum StepKind {
    /// `run task(args) on "target" limit 2`
    Run {
        call: Call,
        on: Expr,
        limit: Option<Expr>,
    },
    /// `wait log "event" where filter`
    Wait {
        event: Expr,
        filter: Option<Place>,
    },
    /// `seq { ... }`
    Seq(Vec<Step>),
    /// `par limit 3 { ... }`
    Par {
        limit: Option<Expr>,
        branches: Vec<Step>,
    },
    /// `barrier name`
    Barrier(Place),
    /// `pause 5s`
    Pause(Expr),
    /// `fail "why"`
    Fail(Expr),
    If(If<Vec<Step>>),
    For {
        name: Place,
        list: Expr,
        body: Vec<Step>,
    },
}

/// `monitor cpu every 5s on "all" within 2s { ... }`
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) name: Place,
    pub(crate) every: Expr,
    pub(crate) on: Expr,
    pub(crate) within: Option<Expr>,
    pub(crate) body: Block,
}

/// `on log "cpu" where pct > 90.0 for 30s by host at most 3 in 10m then page(host) do heal(host)`
#[derive(Debug)]
pub(crate) struct Trigger {
    pub(crate) event: Expr,
    pub(crate) filter: Option<Place>,
    pub(crate) hold: Option<Expr>,
    pub(crate) by: Vec<Place>,
    pub(crate) most: Option<Most>,
    pub(crate) start: Call,
    pub(crate) place: Place,
}

/// `at most 3 in 10m then page(host)`, `at most 3 in 10m then stop`
#[derive(Debug)]
pub(crate) struct Most {
    pub(crate) times: Expr,
    pub(crate) within: Expr,
    /// A flow, or nothing: stop.
    pub(crate) then: Option<Call>,
}
