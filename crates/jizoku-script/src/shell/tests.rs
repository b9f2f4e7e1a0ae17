//! Shell texts that `sh -n` takes and refuses, and what they use.

use alloc::vec::Vec;

use super::read;

const GOOD: &[&str] = &[
    "",
    "# nothing\n",
    "true",
    "a=1 b=$a env | sort -u > /tmp/x 2>&1 &",
    "if [ -f x ]; then echo yes; elif false; then :; else echo no; fi",
    "for i in 1 2 \"a b\"; do echo $i; done",
    "for i\ndo\n echo $i\ndone",
    "while read -r line; do printf '%s\\n' \"$line\"; done < /etc/hosts",
    "until false; do break; done",
    "case $x in a|b) echo ab;; (c) ;; *) echo \"other\" ; esac",
    "case $x in esac",
    "f() { echo \"$1\"; }; f a && f b || exit 1",
    "f() ( cd /; pwd )",
    "( cd / && ls ) | wc -l",
    "cat <<EOF | grep a\nhello $name\n$(date)\nEOF\necho done",
    "cat <<-'EOF'\n\t$not\n\tEOF\n",
    "x=$(echo $(echo \"a)b\")) ; echo ${x:-none} ${#x} ${x%%.*} $((1 + (2 * y))) $(( z ))",
    "echo `ls \\`pwd\\``",
    "echo a\\\n  b",
    "! grep -q x y",
    "echo 'a { } ( ) ; \" ' \\( \\) \"'\" ünï",
    "a && \n b || \n c",
    "{ echo a; echo b; } > out",
    "echo if then fi done",
    "echo $ $1 $# $? $$ \"$@\" ${1} ${@}",
    "awk '{ print $1 }' | sed -e 's/\\(a\\)/b/' ",
    "echo $((\n1))",
    "redis-cli -p $port flushall",
    "[ \"$a\" = b ] && echo same",
    "echo a#b # a comment ' \" (",
];

const BAD: &[&str] = &[
    "if true; then echo",
    "if true; echo; fi",
    "if ; then a; fi",
    "fi",
    "echo )",
    "( echo",
    "echo 'a",
    "echo \"a",
    "echo $(a",
    "echo ${a",
    "echo ${}",
    "a | ",
    "a &&",
    "&& a",
    "| a",
    "; a",
    "a ;; b",
    "for 1x in a; do b; done",
    "for i in a; b; done",
    "while true; do done",
    "case a in b) c",
    "case a b) c;; esac",
    "cat <<EOF\nhello",
    "echo >",
    "f() ",
    "echo a(b)",
    "{ echo a",
    "done",
    "a & & b",
    "echo `a",
];

#[test]
fn right_texts_are_read() {
    for text in GOOD {
        assert!(read(text).is_ok(), "{text:?}: {:?}", read(text).err());
    }
}

#[test]
fn wrong_texts_are_refused_with_a_place_inside() {
    for text in BAD {
        let mistake = read(text).expect_err(text);
        assert!(mistake.start <= mistake.end && mistake.end <= text.len(), "{text:?} {mistake:?}");
    }
}

/// The shell of this machine says the same, where there is one.
#[test]
fn sh_agrees() {
    extern crate std;
    use std::process::Command;
    for (texts, good) in [(GOOD, true), (BAD, false)] {
        for text in texts {
            let Ok(output) = Command::new("sh").args(["-n", "-c", text]).output() else {
                std::println!("skipped: no sh");
                return;
            };
            // Not every sh complains of a here-document that ends with the text, or of `${}`.
            let lenient = text.starts_with("cat <<EOF\nhello") || text.contains("${}");
            assert!(output.status.success() == good || lenient, "{text:?}");
        }
    }
}

#[test]
fn programs_and_variables_are_told() {
    let text = "read a b; f() { x=$a; }; f; pg_ctl -D $data; /bin/ls $HOME ${c:-1} $prot\n\
        for i in $list; do curl -s \"$i\" | jq .; done; cat <<E\n$inner\nE\n";
    let uses = read(text).unwrap();
    let names = |list: &[(usize, &str)]| {
        list.iter().map(|(_, n)| alloc::string::String::from(*n)).collect::<Vec<_>>()
    };
    assert_eq!(names(&uses.programs), ["pg_ctl", "curl", "jq", "cat"]);
    assert_eq!(names(&uses.variables), ["data", "prot", "list", "inner"]);
    let (at, name) = uses.variables[1];
    assert_eq!(&text[at + 1..at + 1 + name.len()], "prot");
    assert!(read("eval \"$x\"").unwrap().variables.is_empty());
}

#[test]
fn deep_nesting_and_cuts_neither_panic_nor_hang() {
    for open in ["$(", "(", "{ ", "${a:-", "\"$(", "if ", "case a in b) ", "f() "] {
        assert!(read(&open.repeat(20_000)).is_err(), "{open}");
    }
    assert!(read(&"$((".repeat(5_000)).is_err());
    for text in GOOD.iter().chain(BAD) {
        for (at, _) in text.char_indices() {
            let _ = read(&text[..at]);
            let _ = read(&text[at..]);
        }
    }
}
