//! What each command does.
//!
//! Invariant: every request gets exactly one reply, and a request that is refused changes nothing.

use crate::resp::{array, bulk, error, integer, nil, simple};
use crate::store::{End, Refusal, Store, Value, parse_integer};

/// What becomes of the connection after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on.
    GoOn,
    /// It is closed once the reply has been sent.
    Close,
}

/// One command: what runs it, and how many words it takes, its name included; a negative number
/// means at least so many.
struct Command {
    name: &'static str,
    words: isize,
    run: fn(&mut Store, &[&[u8]], &mut Vec<u8>) -> Result<(), Refusal>,
}

const COMMANDS: &[Command] = &[
    Command { name: "APPEND", words: 3, run: append },
    Command { name: "CLIENT", words: -2, run: client },
    Command { name: "COMMAND", words: -1, run: command },
    Command { name: "CONFIG", words: -2, run: config },
    Command { name: "DBSIZE", words: 1, run: dbsize },
    Command { name: "DECR", words: 2, run: decr },
    Command { name: "DECRBY", words: 3, run: decrby },
    Command { name: "DEL", words: -2, run: del },
    Command { name: "ECHO", words: 2, run: echo },
    Command { name: "EXISTS", words: -2, run: exists },
    Command { name: "FLUSHALL", words: -1, run: flush },
    Command { name: "FLUSHDB", words: -1, run: flush },
    Command { name: "GET", words: 2, run: get },
    Command { name: "HELLO", words: -1, run: hello },
    Command { name: "INCR", words: 2, run: incr },
    Command { name: "INCRBY", words: 3, run: incrby },
    Command { name: "INFO", words: -1, run: info },
    Command { name: "KEYS", words: 2, run: keys },
    Command { name: "LLEN", words: 2, run: llen },
    Command { name: "LPOP", words: 2, run: lpop },
    Command { name: "LPUSH", words: -3, run: lpush },
    Command { name: "LRANGE", words: 4, run: lrange },
    Command { name: "MGET", words: -2, run: mget },
    Command { name: "MSET", words: -3, run: mset },
    Command { name: "PING", words: -1, run: ping },
    Command { name: "RPOP", words: 2, run: rpop },
    Command { name: "RPUSH", words: -3, run: rpush },
    Command { name: "SELECT", words: 2, run: select },
    Command { name: "SET", words: -3, run: set },
    Command { name: "STRLEN", words: 2, run: strlen },
    Command { name: "TYPE", words: 2, run: kind },
];

/// Runs one request, and appends its reply.
///
/// Kept out of the loop that waits for connections: what is inlined there would be instrumented
/// with it, and run slower.
#[inline(never)]
pub fn execute(store: &mut Store, words: &[&[u8]], out: &mut Vec<u8>) -> After {
    let Some(name) = words.first() else { return After::GoOn };
    if name.eq_ignore_ascii_case(b"QUIT") {
        simple(out, "OK");
        return After::Close;
    }
    let found = COMMANDS.iter().find(|command| name.eq_ignore_ascii_case(command.name.as_bytes()));
    let Some(command) = found else {
        let name = String::from_utf8_lossy(&name[..name.len().min(64)]);
        let name = name.replace(['\r', '\n'], " ");
        error(out, &format!("ERR unknown command '{name}'"));
        return After::GoOn;
    };
    let count = words.len() as isize;
    if count != command.words && (command.words > 0 || count < -command.words) {
        let name = command.name.to_ascii_lowercase();
        error(out, &format!("ERR wrong number of arguments for '{name}' command"));
        return After::GoOn;
    }
    let start = out.len();
    if let Err(refusal) = (command.run)(store, &words[1..], out) {
        out.truncate(start);
        error(out, text(refusal));
    }
    After::GoOn
}

fn text(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::WrongKind => "WRONGTYPE Operation against a key holding the wrong kind of value",
        Refusal::NotAnInteger => "ERR value is not an integer or out of range",
        Refusal::Overflow => "ERR increment or decrement would overflow",
    }
}

type Done = Result<(), Refusal>;

fn append(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    integer(out, store.append(args[0], args[1])? as i64);
    Ok(())
}

fn client(_: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    // Names and libraries of clients are taken note of by nobody.
    match args[0].to_ascii_uppercase().as_slice() {
        b"SETNAME" | b"SETINFO" | b"NO-EVICT" | b"NO-TOUCH" => simple(out, "OK"),
        b"GETNAME" => nil(out),
        b"ID" => integer(out, 1),
        _ => error(out, "ERR unknown subcommand of 'client'"),
    }
    Ok(())
}

fn command(_: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    match args.first().map(|word| word.to_ascii_uppercase()).as_deref() {
        Some(b"COUNT") => integer(out, COMMANDS.len() as i64),
        // Clients ask for completion and hints only; none is an answer.
        _ => array(out, 0),
    }
    Ok(())
}

fn config(_: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    match (args[0].to_ascii_uppercase().as_slice(), args.get(1)) {
        (b"GET", Some(&name)) => {
            let value: &[u8] = match name.to_ascii_lowercase().as_slice() {
                b"save" => b"",
                b"appendonly" => b"no",
                _ => {
                    array(out, 0);
                    return Ok(());
                }
            };
            array(out, 2);
            bulk(out, name);
            bulk(out, value);
        }
        _ => error(out, "ERR only 'config get' is offered"),
    }
    Ok(())
}

fn dbsize(store: &mut Store, _: &[&[u8]], out: &mut Vec<u8>) -> Done {
    integer(out, store.len() as i64);
    Ok(())
}

fn decr(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    integer(out, store.add(args[0], -1)?);
    Ok(())
}

fn decrby(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    let amount = number(args[1])?.checked_neg().ok_or(Refusal::Overflow)?;
    integer(out, store.add(args[0], amount)?);
    Ok(())
}

fn del(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    integer(out, args.iter().filter(|key| store.remove(key)).count() as i64);
    Ok(())
}

fn echo(_: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    bulk(out, args[0]);
    Ok(())
}

fn exists(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    integer(out, args.iter().filter(|key| store.value(key).is_some()).count() as i64);
    Ok(())
}

fn flush(store: &mut Store, _: &[&[u8]], out: &mut Vec<u8>) -> Done {
    store.clear();
    simple(out, "OK");
    Ok(())
}

fn get(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    string(out, store.get(args[0])?);
    Ok(())
}

fn hello(_: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    if args.first().is_some_and(|&version| version != b"2") {
        error(out, "NOPROTO unsupported protocol version");
        return Ok(());
    }
    array(out, 6);
    for (name, value) in [("server", "kv"), ("version", env!("CARGO_PKG_VERSION"))] {
        bulk(out, name.as_bytes());
        bulk(out, value.as_bytes());
    }
    bulk(out, b"proto");
    integer(out, 2);
    Ok(())
}

fn incr(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    integer(out, store.add(args[0], 1)?);
    Ok(())
}

fn incrby(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    integer(out, store.add(args[0], number(args[1])?)?);
    Ok(())
}

fn info(store: &mut Store, _: &[&[u8]], out: &mut Vec<u8>) -> Done {
    let version = env!("CARGO_PKG_VERSION");
    let keys = store.len();
    let text = format!(
        "# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n\
         # Keyspace\r\ndb0:keys={keys},expires=0,avg_ttl=0\r\n"
    );
    bulk(out, text.as_bytes());
    Ok(())
}

fn keys(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    let found: Vec<&[u8]> = store.keys().filter(|key| matches(args[0], key)).collect();
    array(out, found.len());
    found.iter().for_each(|key| bulk(out, key));
    Ok(())
}

fn kind(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    let kind = match store.value(args[0]) {
        None => "none",
        Some(Value::String(_)) => "string",
        Some(Value::List(_)) => "list",
    };
    simple(out, kind);
    Ok(())
}

fn llen(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    integer(out, store.list(args[0])?.map_or(0, |list| list.len()) as i64);
    Ok(())
}

fn lpop(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    string(out, store.pop(args[0], End::Left)?.as_deref());
    Ok(())
}

fn lpush(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    push(store, args, End::Left, out)
}

fn lrange(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    let (first, last) = (number(args[1])?, number(args[2])?);
    let Some(list) = store.list(args[0])? else {
        array(out, 0);
        return Ok(());
    };
    let length = list.len() as i64;
    // Negative positions count from the end.
    let place = |at: i64| if at < 0 { at.saturating_add(length) } else { at };
    let first = place(first).max(0);
    let count = place(last).min(length - 1).saturating_sub(first).saturating_add(1).max(0);
    array(out, count as usize);
    list.iter().skip(first as usize).take(count as usize).for_each(|element| bulk(out, element));
    Ok(())
}

fn mget(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    array(out, args.len());
    args.iter().for_each(|key| string(out, store.get(key).unwrap_or(None)));
    Ok(())
}

fn mset(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    if !args.len().is_multiple_of(2) {
        error(out, "ERR wrong number of arguments for 'mset' command");
        return Ok(());
    }
    args.chunks_exact(2).for_each(|pair| store.set(pair[0], pair[1]));
    simple(out, "OK");
    Ok(())
}

fn ping(_: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    match args.first() {
        None => simple(out, "PONG"),
        Some(text) => bulk(out, text),
    }
    Ok(())
}

fn push(store: &mut Store, args: &[&[u8]], end: End, out: &mut Vec<u8>) -> Done {
    let mut length = 0;
    for element in &args[1..] {
        length = store.push(args[0], end, element)?;
    }
    integer(out, length as i64);
    Ok(())
}

fn rpop(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    string(out, store.pop(args[0], End::Right)?.as_deref());
    Ok(())
}

fn rpush(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    push(store, args, End::Right, out)
}

fn select(_: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    match args[0] {
        b"0" => simple(out, "OK"),
        _ => error(out, "ERR DB index is out of range"),
    }
    Ok(())
}

fn set(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    let wanted = match args[2..] {
        [] => true,
        [option] if option.eq_ignore_ascii_case(b"NX") => store.value(args[0]).is_none(),
        [option] if option.eq_ignore_ascii_case(b"XX") => store.value(args[0]).is_some(),
        _ => {
            error(out, "ERR syntax error");
            return Ok(());
        }
    };
    if wanted {
        store.set(args[0], args[1]);
        simple(out, "OK");
    } else {
        nil(out);
    }
    Ok(())
}

fn strlen(store: &mut Store, args: &[&[u8]], out: &mut Vec<u8>) -> Done {
    integer(out, store.get(args[0])?.map_or(0, <[u8]>::len) as i64);
    Ok(())
}

fn number(word: &[u8]) -> Result<i64, Refusal> {
    parse_integer(word).ok_or(Refusal::NotAnInteger)
}

fn string(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => bulk(out, bytes),
        None => nil(out),
    }
}

/// Whether `text` fits `pattern`, where `*` stands for any bytes and `?` for any one.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last `*` was, and what it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, t) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(store: &mut Store, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut out = Vec::new();
        assert_eq!(execute(store, &words, &mut out), After::GoOn);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_session() {
        let store = &mut Store::default();
        for (line, reply) in [
            ("PING", "+PONG\r\n"),
            ("ping hello", "$5\r\nhello\r\n"),
            ("GET a", "$-1\r\n"),
            ("SET a 1", "+OK\r\n"),
            ("SET a 2 NX", "$-1\r\n"),
            ("INCR a", ":2\r\n"),
            ("INCRBY a -5", ":-3\r\n"),
            ("DECRBY a -9223372036854775808", "-ERR increment or decrement would overflow\r\n"),
            ("APPEND a x", ":3\r\n"),
            ("INCR a", "-ERR value is not an integer or out of range\r\n"),
            ("GET a", "$3\r\n-3x\r\n"),
            ("MSET b 1 c 2", "+OK\r\n"),
            ("MSET b 1 c", "-ERR wrong number of arguments for 'mset' command\r\n"),
            ("MGET a b x", "*3\r\n$3\r\n-3x\r\n$1\r\n1\r\n$-1\r\n"),
            ("EXISTS a b x a", ":3\r\n"),
            ("DEL a x", ":1\r\n"),
            ("DBSIZE", ":2\r\n"),
            ("LPUSH b 1", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"),
            ("LPUSH l 1 2", ":2\r\n"),
            ("RPUSH l 3", ":3\r\n"),
            ("LRANGE l 0 -1", "*3\r\n$1\r\n2\r\n$1\r\n1\r\n$1\r\n3\r\n"),
            ("LRANGE l -2 -2", "*1\r\n$1\r\n1\r\n"),
            ("LRANGE l 2 1", "*0\r\n"),
            ("LRANGE l 9 -9223372036854775808", "*0\r\n"),
            ("LPOP l", "$1\r\n2\r\n"),
            ("RPOP l", "$1\r\n3\r\n"),
            ("RPOP l", "$1\r\n1\r\n"),
            ("TYPE l", "+none\r\n"),
            ("KEYS b*", "*1\r\n$1\r\nb\r\n"),
            ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
            ("NOSUCH", "-ERR unknown command 'NOSUCH'\r\n"),
            ("FLUSHALL", "+OK\r\n"),
            ("DBSIZE", ":0\r\n"),
        ] {
            assert_eq!(run(store, line), reply, "{line}");
        }
        let mut out = Vec::new();
        assert_eq!(execute(store, &[b"quit"], &mut out), After::Close);
    }

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("*", "any", true),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*ab*ab", "ababab", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }
}
