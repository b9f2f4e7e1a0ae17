//! Functions of values alone.

use super::{By, Function, Gives, Parameter, Rest, param};
use crate::types::Type;

macro_rules! builtins {
    ($(
        $variant:ident $name:literal ($($param:literal : $kind:expr),*) $gives:expr, $doc:literal;
    )*) => {
        /// Which function of values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Builtin {
            $($variant,)*
        }

        /// Ordered by name.
        pub(super) static FUNCTIONS: &[Function] = &[
            $(Function {
                name: $name,
                params: {
                    const PARAMS: &[Parameter] = &[$(param($param, $kind)),*];
                    PARAMS
                },
                rest: Rest::Nothing,
                result: $gives,
                needs: None,
                by: By::Evaluator(Builtin::$variant),
                doc: $doc,
            },)*
        ];
    };
}

const fn gives(kind: Type) -> Gives {
    Gives::Value(kind)
}

const ANY_LIST: Type = Type::ANY.list();

builtins! {
    Abs "abs" ("number": Type::FLOAT) Gives::Same, "The number without its sign.";
    Ends "ends" ("text": Type::STR, "with": Type::STR) gives(Type::BOOL),
        "Whether a text ends with another.";
    First "first" ("list": ANY_LIST) Gives::Element, "The first element; absent if there is none.";
    Float "float" ("text": Type::STR) gives(Type::FLOAT.optional()),
        "The number that a text is; absent if it is none.";
    Int "int" ("text": Type::STR) gives(Type::INT.optional()),
        "The whole number that a text is; absent if it is none.";
    Join "join" ("list": Type::STR.list(), "between": Type::STR) gives(Type::STR),
        "All texts of a list as one, with another between them.";
    Last "last" ("list": ANY_LIST) Gives::Element, "The last element; absent if there is none.";
    Len "len" ("of": Type::ANY) gives(Type::INT), "Elements of a list, or letters of a text.";
    Lines "lines" ("text": Type::STR) gives(Type::STR.list()), "The lines of a text.";
    Lower "lower" ("text": Type::STR) gives(Type::STR), "In small letters.";
    Max "max" ("list": ANY_LIST) Gives::Element, "The greatest element; absent if there is none.";
    Min "min" ("list": ANY_LIST) Gives::Element, "The least element; absent if there is none.";
    Range "range" ("from": Type::INT, "to": Type::INT) gives(Type::INT.list()),
        "The whole numbers from one to before another; at most 10000.";
    Replace "replace" ("text": Type::STR, "what": Type::STR, "with": Type::STR) gives(Type::STR),
        "The text with another in place of each part of it.";
    Round "round" ("number": Type::FLOAT) gives(Type::INT), "The nearest whole number.";
    Seconds "seconds" ("time": Type::DURATION) gives(Type::FLOAT), "A time as a number of seconds.";
    Sort "sort" ("list": ANY_LIST) Gives::Same, "The elements, the least first.";
    Split "split" ("text": Type::STR, "at": Type::STR) gives(Type::STR.list()),
        "The parts of a text between each occurrence of another.";
    Starts "starts" ("text": Type::STR, "with": Type::STR) gives(Type::BOOL),
        "Whether a text starts with another.";
    Str "str" ("value": Type::ANY) gives(Type::STR), "A value as text.";
    Sum "sum" ("list": Type::FLOAT.list()) gives(Type::FLOAT), "All numbers of a list together.";
    Trim "trim" ("text": Type::STR) gives(Type::STR), "Without blanks around it.";
    Upper "upper" ("text": Type::STR) gives(Type::STR), "In capital letters.";
    Words "words" ("text": Type::STR) gives(Type::STR.list()),
        "The parts of a text between blanks.";
}
