//! JSON in ASCII, written by hand: the bodies are flat, and a serializer is as large as this plugin.

use handler_text::number;

/// An object or array being written; [`Json::end`] closes it.
#[derive(Debug)]
pub(crate) struct Json<'a> {
    out: &'a mut Vec<u8>,
    close: u8,
    empty: bool,
}

impl<'a> Json<'a> {
    /// An array as the whole text.
    pub(crate) fn array(out: &'a mut Vec<u8>) -> Self {
        Self::open(out, b'[', b']')
    }

    fn open(out: &'a mut Vec<u8>, open: u8, close: u8) -> Self {
        out.push(open);
        Self { out, close, empty: true }
    }

    pub(crate) fn end(self) {
        self.out.push(self.close);
    }

    fn comma(&mut self) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
    }

    /// The next value of an array: an object.
    pub(crate) fn object(&mut self) -> Json<'_> {
        self.comma();
        Json::open(self.out, b'{', b'}')
    }

    fn key(&mut self, key: &str) {
        self.comma();
        push_text(self.out, key);
        self.out.push(b':');
    }

    /// A field that is an object.
    pub(crate) fn object_at(&mut self, key: &str) -> Json<'_> {
        self.key(key);
        Json::open(self.out, b'{', b'}')
    }

    /// A field that is an array.
    pub(crate) fn array_at(&mut self, key: &str) -> Json<'_> {
        self.key(key);
        Json::open(self.out, b'[', b']')
    }

    /// A field that is a text.
    pub(crate) fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        push_text(self.out, text);
    }

    /// A field that is a whole number.
    pub(crate) fn whole(&mut self, key: &str, value: u64) {
        self.key(key);
        number::push_whole(self.out, value);
    }

    /// A field that is a number; left out if it is none that JSON knows.
    pub(crate) fn number(&mut self, key: &str, value: f64) {
        if value.is_finite() {
            self.key(key);
            number::push(self.out, value);
        }
    }
}

/// In quotes.
fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if text.as_bytes().iter().all(is_plain) {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.chars().for_each(|c| push_char(out, c));
    }
    out.push(b'"');
}

fn push_char(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        ' '..='~' => out.push(c as u8),
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(b"\\u");
                for shift in [12, 8, 4, 0] {
                    out.push(b"0123456789abcdef"[usize::from(*unit >> shift & 15)]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_and_commas_come_out_right() {
        let mut out = Vec::new();
        let mut array = Json::array(&mut out);
        let mut object = array.object();
        object.text("a", "x");
        let mut inner = object.array_at("b");
        inner.object().end();
        let mut second = inner.object();
        second.number("c", 1.5);
        second.number("not", f64::NAN);
        second.whole("d", 7);
        second.end();
        inner.end();
        object.object_at("e").end();
        object.end();
        array.end();
        assert_eq!(out, br#"[{"a":"x","b":[{},{"c":1.5,"d":7}],"e":{}}]"#);
    }

    #[test]
    fn any_text_is_ascii_and_reads_back() {
        let text = "a \"b\" \\ \n\r\t\u{8}\u{0}\u{7f} ä € 😀";
        let mut out = Vec::new();
        push_text(&mut out, text);
        let expected = r#""a \"b\" \\ \n\r\t\u0008\u0000\u007f \u00e4 \u20ac \ud83d\ude00""#;
        assert_eq!(String::from_utf8(out), Ok(expected.to_owned()));
    }
}
