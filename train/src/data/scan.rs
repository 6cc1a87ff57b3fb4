//! Cuts a dataset file into records without reading it as a whole.
//!
//! A JSON array of any size is walked byte by byte, keeping only the record at hand; JSONL is walked line by line. The
//! records themselves are not understood here, only their bounds are.

use std::io::{self, BufRead};

/// Longest record in bytes. Conversations have kilobytes; a longer "record" is a file that lost a quote or a bracket.
const MAX_RECORD: usize = 64 << 20;
/// Deepest nesting inside a record, the bound that `serde_json` has as well.
const MAX_DEPTH: usize = 128;

/// The bytes of one record and where they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// Line of the first byte, counted from 1.
    pub line: u64,
    /// Column of the first byte in bytes, counted from 1.
    pub column: u64,
    /// The record's text.
    pub text: Vec<u8>,
}

/// Why a file cannot be cut into records any further.
#[derive(Debug)]
pub enum Broken {
    /// Reading failed.
    Io(io::Error),
    /// The text is not what JSON allows at this place.
    Syntax {
        /// Line, counted from 1.
        line: u64,
        /// Column in bytes, counted from 1.
        column: u64,
        /// What was found and what was expected.
        detail: String,
    },
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The two shapes of a dataset file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Array,
    Lines,
}

/// Iterates over the records of a JSON array or of a JSONL file; the first byte that is not white space tells which.
pub struct Scanner<R> {
    bytes: Bytes<R>,
    layout: Option<Layout>,
    records: usize,
    finished: bool,
}

impl<R: BufRead> Scanner<R> {
    /// A scanner at the front of a file.
    pub fn new(reader: R) -> Self {
        let bytes = Bytes { reader, offset: 0, line: 1, column: 1 };
        Self { bytes, layout: None, records: 0, finished: false }
    }

    fn advance(&mut self) -> Result<Option<Extent>, Broken> {
        let layout = match self.layout {
            Some(layout) => layout,
            None => match self.begin()? {
                Some(layout) => *self.layout.insert(layout),
                None => return Ok(None),
            },
        };
        let extent = match layout {
            Layout::Array => self.element()?,
            Layout::Lines => self.line()?,
        };
        self.records += 1;
        Ok(extent)
    }

    /// Reads up to the first record; an array's opening bracket is consumed.
    fn begin(&mut self) -> Result<Option<Layout>, Broken> {
        if self.bytes.reader.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            for _ in 0..3 {
                self.bytes.take()?;
            }
            self.bytes.column = 1;
        }
        self.bytes.skip_space()?;
        match self.bytes.peek()? {
            None => Ok(None),
            Some(b'[') => {
                self.bytes.take()?;
                Ok(Some(Layout::Array))
            }
            Some(b'{') => Ok(Some(Layout::Lines)),
            Some(byte) => self.bytes.syntax(format!("the file begins with {}, not with `[` or `{{`", show(byte))),
        }
    }

    /// The next element of the array with the comma or bracket before it.
    fn element(&mut self) -> Result<Option<Extent>, Broken> {
        self.bytes.skip_space()?;
        match (self.bytes.peek()?, self.records) {
            (None, _) => return self.bytes.syntax("the file ends inside the array; it may have been cut off".into()),
            (Some(b']'), _) => {
                self.bytes.take()?;
                self.bytes.skip_space()?;
                return match self.bytes.peek()? {
                    None => Ok(None),
                    Some(byte) => self.bytes.syntax(format!("{} follows the end of the array", show(byte))),
                };
            }
            (Some(_), 0) => {}
            (Some(b','), _) => {
                self.bytes.take()?;
                self.bytes.skip_space()?;
            }
            (Some(byte), _) => {
                return self.bytes.syntax(format!("{} stands where `,` or `]` is expected", show(byte)));
            }
        }
        let mut extent = self.bytes.extent();
        // Brackets that are open, as the byte that closes each.
        let mut open: Vec<u8> = Vec::new();
        loop {
            let Some(byte) = self.bytes.peek()? else {
                return self.bytes.syntax("the file ends inside a record; it may have been cut off".into());
            };
            match byte {
                b'"' => {
                    self.string(&mut extent.text)?;
                    if open.is_empty() {
                        return Ok(Some(extent));
                    }
                    continue;
                }
                b'{' => open.push(b'}'),
                b'[' => open.push(b']'),
                b',' | b']' if open.is_empty() => {
                    if extent.text.is_empty() {
                        return self.bytes.syntax(format!("{} stands where a record is expected", show(byte)));
                    }
                    return Ok(Some(extent));
                }
                b'}' | b']' => {
                    if open.pop() != Some(byte) {
                        return self.bytes.syntax(format!("{} closes nothing that is open", show(byte)));
                    }
                    if open.is_empty() {
                        self.keep(&mut extent.text)?;
                        return Ok(Some(extent));
                    }
                }
                byte if byte.is_ascii_whitespace() && open.is_empty() => return Ok(Some(extent)),
                _ => {}
            }
            if open.len() > MAX_DEPTH {
                return self.bytes.syntax(format!("more than {MAX_DEPTH} brackets are open"));
            }
            self.keep(&mut extent.text)?;
        }
    }

    /// A string with both quotes.
    fn string(&mut self, text: &mut Vec<u8>) -> Result<(), Broken> {
        let mut escaped = true;
        loop {
            match self.bytes.peek()? {
                None => return self.bytes.syntax("the file ends inside a string; it may have been cut off".into()),
                Some(b'\n') => {
                    return self.bytes.syntax("a string is not closed before the line ends".into());
                }
                Some(byte) => {
                    self.keep(text)?;
                    if byte == b'"' && !escaped {
                        return Ok(());
                    }
                    // The opening quote counts as escaped, so that it does not close the string.
                    escaped = byte == b'\\' && !escaped;
                }
            }
        }
    }

    /// The next line that is not blank.
    fn line(&mut self) -> Result<Option<Extent>, Broken> {
        self.bytes.skip_space()?;
        let mut extent = self.bytes.extent();
        while let Some(byte) = self.bytes.peek()? {
            if byte == b'\n' {
                break;
            }
            self.keep(&mut extent.text)?;
        }
        let trimmed = extent.text.trim_ascii_end().len();
        extent.text.truncate(trimmed);
        Ok((!extent.text.is_empty()).then_some(extent))
    }

    fn keep(&mut self, text: &mut Vec<u8>) -> Result<(), Broken> {
        if text.len() == MAX_RECORD {
            return self.bytes.syntax(format!("a record is longer than {} MiB", MAX_RECORD >> 20));
        }
        text.extend(self.bytes.take()?);
        Ok(())
    }
}

impl<R: BufRead> Iterator for Scanner<R> {
    type Item = Result<Extent, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let next = self.advance().transpose();
        self.finished = !matches!(next, Some(Ok(_)));
        next
    }
}

/// A reader that knows its place.
struct Bytes<R> {
    reader: R,
    offset: u64,
    line: u64,
    column: u64,
}

impl<R: BufRead> Bytes<R> {
    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.reader.fill_buf()?.first().copied())
    }

    fn take(&mut self) -> io::Result<Option<u8>> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            self.reader.consume(1);
            self.offset += 1;
            self.column += 1;
            if byte == b'\n' {
                self.line += 1;
                self.column = 1;
            }
        }
        Ok(byte)
    }

    fn skip_space(&mut self) -> io::Result<()> {
        while self.peek()?.is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.take()?;
        }
        Ok(())
    }

    /// An empty extent that begins here.
    fn extent(&self) -> Extent {
        Extent { offset: self.offset, line: self.line, column: self.column, text: Vec::new() }
    }

    fn syntax<T>(&self, detail: String) -> Result<T, Broken> {
        Err(Broken::Syntax { line: self.line, column: self.column, detail })
    }
}

fn show(byte: u8) -> String {
    if byte.is_ascii_graphic() { format!("`{}`", byte as char) } else { format!("the byte 0x{byte:02x}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> (Vec<Extent>, Option<Broken>) {
        let mut records = Vec::new();
        // A buffer of 3 bytes makes every record span several reads.
        for next in Scanner::new(io::BufReader::with_capacity(3, text.as_bytes())) {
            match next {
                Ok(extent) => records.push(extent),
                Err(broken) => return (records, Some(broken)),
            }
        }
        (records, None)
    }

    fn syntax(text: &str) -> (usize, u64, u64, String) {
        match scan(text) {
            (records, Some(Broken::Syntax { line, column, detail })) => (records.len(), line, column, detail),
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn arrays_are_cut_at_their_elements() {
        let text = " [ {\"a\": [1, {\"b\": \"]},\\\"\"}]} ,\n  7,\"x,]\" , null]\n";
        let (records, broken) = scan(text);
        assert!(broken.is_none(), "{broken:?}");
        let texts: Vec<_> = records.iter().map(|r| String::from_utf8_lossy(&r.text).into_owned()).collect();
        assert_eq!(texts, ["{\"a\": [1, {\"b\": \"]},\\\"\"}]}", "7", "\"x,]\"", "null"]);
        assert_eq!((records[0].line, records[0].column), (1, 4));
        assert_eq!((records[1].line, records[1].column), (2, 3));
        for record in &records {
            let start = record.offset as usize;
            assert_eq!(&text.as_bytes()[start..start + record.text.len()], record.text);
        }
    }

    #[test]
    fn lines_are_cut_at_line_ends() {
        let (records, broken) = scan("\u{feff}{\"a\": 1}\r\n\n  {broken\n{\"b\": 2}");
        assert!(broken.is_none(), "{broken:?}");
        let places: Vec<_> = records.iter().map(|r| (r.line, r.column, r.text.as_slice())).collect();
        assert_eq!(places, [(1, 1, &b"{\"a\": 1}"[..]), (3, 3, b"{broken"), (4, 1, b"{\"b\": 2}")]);
    }

    #[test]
    fn empty_files_and_arrays_have_no_records() {
        for text in ["", " \n", "[]", "[ ]\n", "\u{feff}[]"] {
            let (records, broken) = scan(text);
            assert!(records.is_empty() && broken.is_none(), "{text:?}: {broken:?}");
        }
    }

    #[test]
    fn broken_arrays_name_the_place() {
        assert_eq!(syntax("[{\"a\": 1}\n {\"b\": 2}]").0, 1);
        assert_eq!(syntax("[{\"a\": 1}\n {\"b\": 2}]").1, 2);
        assert!(syntax("[{\"a\": 1}, ]").3.contains("where a record is expected"));
        assert!(syntax("[{\"a\": \"1}\n]").3.contains("not closed"));
        assert!(syntax("[{\"a\": 1]]").3.contains("closes nothing"));
        assert!(syntax("[{\"a\": 1}").3.contains("ends inside the array"));
        assert!(syntax("[{\"a\": ").3.contains("ends inside a record"));
        assert!(syntax("[{\"a").3.contains("ends inside a string"));
        assert!(syntax("[] x").3.contains("follows the end"));
        assert!(syntax("version https://git-lfs").3.contains("begins with `v`"));
        assert!(syntax(&"[".repeat(200)).3.contains("brackets are open"));
    }

    /// Every cut of a valid file is either noticed or leaves whole records only.
    #[test]
    fn no_truncation_panics_or_invents_records() {
        let text = "[{\"a\": [\"x\\\\\", {}]}, {\"b\": \"\\\"\"}, 3]";
        let (whole, _) = scan(text);
        for cut in 0..text.len() {
            let (records, broken) = scan(&text[..cut]);
            assert!(cut == 0 || broken.is_some(), "cut at {cut}");
            assert!(records.iter().zip(&whole).all(|(a, b)| a == b), "cut at {cut}");
        }
    }
}
