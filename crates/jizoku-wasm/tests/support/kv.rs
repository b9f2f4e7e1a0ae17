//! Requests for the key-value server, and the answers that they must get.

use std::collections::BTreeMap;

use jizoku_types::ConnId;

use super::house::House;

/// One request, encoded.
pub(crate) fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

/// Sends a request and waits for so many bytes of answer.
pub(crate) fn ask(house: &mut House, conn: ConnId, words: &[&str], answer: &str) {
    let before = house.received(conn);
    house.send(conn, &request(words));
    house.serve_until(|house| house.received(conn) >= before + answer.len());
    let got = &house.clients[&conn].received[before..];
    assert_eq!(String::from_utf8_lossy(got), answer, "{words:?}");
}

/// A stream of numbers that is the same in every run.
pub(crate) struct Draw(pub u64);

impl Draw {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// What the server must hold: each client has keys of its own, so that the order between
/// clients does not matter.
#[derive(Default)]
pub(crate) struct Model {
    values: BTreeMap<String, String>,
}

impl Model {
    /// Draws a request of client number `client`, and gives it with its answer.
    pub(crate) fn draw(&mut self, draw: &mut Draw, client: usize) -> (Vec<u8>, Vec<u8>) {
        let key = format!("c{client}:{}", draw.below(50));
        let number = format!("c{client}:n{}", draw.below(5));
        let bulk = |value: Option<&String>| match value {
            Some(value) => format!("${}\r\n{value}\r\n", value.len()),
            None => "$-1\r\n".into(),
        };
        let (bytes, answer) = match draw.below(6) {
            0 | 1 => {
                let value = "v".repeat(draw.below(3000) as usize);
                let bytes = request(&["SET", &key, &value]);
                self.values.insert(key, value);
                (bytes, "+OK\r\n".into())
            }
            2 => {
                let value: i64 = self.values.get(&number).map_or(0, |v| v.parse().unwrap());
                let bytes = request(&["INCR", &number]);
                self.values.insert(number, (value + 1).to_string());
                (bytes, format!(":{}\r\n", value + 1))
            }
            3 => {
                let there = self.values.remove(&key).is_some();
                (request(&["DEL", &key]), format!(":{}\r\n", u8::from(there)))
            }
            4 => {
                let value = self.values.entry(key.clone()).or_default();
                value.push_str("+more");
                (request(&["APPEND", &key, "+more"]), format!(":{}\r\n", value.len()))
            }
            _ => (request(&["GET", &key]), bulk(self.values.get(&key))),
        };
        (bytes, answer.into_bytes())
    }
}
