//! A pickle machine that builds dictionaries of tensors and nothing else.
//!
//! A pickle is a program for a stack machine whose instructions may call any function of Python. This one knows no
//! functions: what a file may name is the closed list of [`Global::find`], and "calling" one of them means to note down
//! what it would return. Reference: CPython `pickletools.py`, PyTorch `torch/_weights_only_unpickler.py`.

use std::collections::HashMap;

use super::value::{Global, Id, Storage, Store, Tensor, Value};
use crate::weights::printable;

/// Dimensions of a tensor.
const MAX_RANK: usize = 16;

/// Runs the pickle at the beginning of `bytes`; returns its value and its length.
pub(super) fn run<'a>(bytes: &'a [u8], store: &mut Store<'a>) -> Result<(Id, usize), String> {
    let length = bytes.len();
    let machine = Machine { length, rest: bytes, store, stack: vec![], marks: vec![], memo: HashMap::new(), copied: 0 };
    let (root, rest) = machine.run()?;
    Ok((root, length - rest))
}

struct Machine<'a, 's> {
    /// Bytes in all.
    length: usize,
    rest: &'a [u8],
    store: &'s mut Store<'a>,
    stack: Vec<Id>,
    /// Heights of the stack at open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Entries that were copied from lists into dictionaries.
    copied: usize,
}

impl<'a> Machine<'a, '_> {
    /// Returns the value and how many bytes are left behind it.
    fn run(mut self) -> Result<(Id, usize), String> {
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                return Ok((self.pop()?, self.rest.len()));
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // PROTO, FRAME
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = *self.stack.last().ok_or_else(empty)?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Int(1))?,
            0x89 => self.push(Value::Int(0))?,
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()))?;
            }
            b'K' => {
                let number = self.byte()?;
                self.push(Value::Int(number.into()))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()))?;
            }
            0x8a => {
                let length = self.byte()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Opaque)?;
            }
            // Text: BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, and strings of Python 2
            b'X' | b'T' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            0x8c | b'U' => {
                let length = self.byte()?;
                self.text(length.into())?;
            }
            0x8d => {
                let length = self.length8()?;
                self.text(length)?;
            }
            // Bytes: BINBYTES, SHORT_BINBYTES, BINBYTES8
            b'B' => {
                let length = self.length4()?;
                self.opaque(length)?;
            }
            b'C' => {
                let length = self.byte()?;
                self.opaque(length.into())?;
            }
            0x8e => {
                let length = self.length8()?;
                self.opaque(length)?;
            }
            b']' | b')' => self.push(Value::Sequence(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            0x8f => self.push(Value::Opaque)?,
            b't' | b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::Sequence(items))?;
            }
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(opcode - 0x84)).ok_or_else(empty)?;
                self.above_mark(start)?;
                let items = self.stack.split_off(start);
                self.push(Value::Sequence(items))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set_items(&items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            0x90 => drop(self.pop_mark()?),
            b'q' => {
                let key = self.byte()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let key = self.byte()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.store.text(module), self.store.text(name)) {
                    (Some(module), Some(name)) => self.global(module, name)?,
                    _ => return Err("a global without a name".into()),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id).ok_or("a reference to something else than a storage")?;
                self.push(Value::Storage(storage))?;
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let result = self.call(callee, arguments)?;
                self.stack.push(result);
            }
            // BUILD sets attributes, such as the versions that a state dictionary notes down. No tensor depends on them.
            b'b' => drop(self.pop()?),
            other => return Err(format!("instruction {other:#04x} is not one that files of tensors need")),
        }
        Ok(())
    }

    /// What a callable of the list would return.
    fn call(&mut self, callee: Id, arguments: Id) -> Result<Id, String> {
        let Value::Global(global) = *self.store.get(callee) else {
            return Err("a call of something that is no function".into());
        };
        let arguments = self.store.items(arguments).ok_or("a call without a list of arguments")?;
        let result = match (global, arguments) {
            (Global::Size | Global::RebuildParameter, [first, ..]) => return Ok(*first),
            (Global::Opaque, _) => Value::Opaque,
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::OrderedDict, [pairs]) => Value::Dict(self.pairs(*pairs)?),
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let tensor = self.tensor(*storage, *offset, *shape, *strides);
                Value::Tensor(tensor.ok_or("a tensor without storage, offset, sizes and strides")?)
            }
            (Global::Storage(_), _) => return Err("a storage that is made by a call".into()),
            (global, arguments) => return Err(format!("{global:?} with {} arguments", arguments.len())),
        };
        self.store.add(result)
    }

    /// The entries of a dictionary that is made from a list of pairs.
    fn pairs(&mut self, list: Id) -> Result<Vec<(Id, Id)>, String> {
        let list = self.store.items(list).ok_or("a dictionary that is not made of a list")?;
        // The same list can be named any number of times, so what is copied has to be bounded.
        self.copied += list.len();
        if self.copied > self.length {
            return Err("more entries of dictionaries than it has bytes".into());
        }
        let pair = |id: &Id| match self.store.items(*id) {
            Some([key, value]) => Ok((*key, *value)),
            _ => Err("a dictionary that is not made of pairs".to_string()),
        };
        list.iter().map(pair).collect()
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Option<Tensor<'a>> {
        let Value::Storage(storage) = self.store.get(storage) else { return None };
        let sizes = |id| {
            let items = self.store.items(id).filter(|items| items.len() <= MAX_RANK)?;
            items.iter().map(|item| self.store.size(*item)).collect::<Option<Vec<usize>>>()
        };
        let (shape, strides) = (sizes(shape)?, sizes(strides)?);
        let offset = self.store.size(offset)?;
        (shape.len() == strides.len()).then_some(Tensor { storage: *storage, offset, shape, strides })
    }

    /// `("storage", type, key, device, elements)`, in old files followed by a view, which none has had for long.
    fn storage(&self, id: Id) -> Option<Storage<'a>> {
        let (kind, ty, key, elements) = match self.store.items(id)? {
            [kind, ty, key, _, elements] => (kind, ty, key, elements),
            [kind, ty, key, _, elements, view] if matches!(self.store.get(*view), Value::None) => {
                (kind, ty, key, elements)
            }
            _ => return None,
        };
        let Value::Global(Global::Storage(dtype)) = self.store.get(*ty) else { return None };
        (self.store.text(*kind)? == "storage").then_some(Storage {
            dtype: *dtype,
            key: self.store.text(*key)?,
            elements: self.store.size(*elements)?,
        })
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let problem =
            || format!("it names `{}.{}`, which a file of tensors has no need of", printable(module), printable(name));
        let global = Global::find(module, name).ok_or_else(problem)?;
        self.push(Value::Global(global))
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a dictionary with a key without a value".into());
        }
        match self.top()? {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            Value::Opaque => {}
            _ => return Err("an entry for something that is no dictionary".into()),
        }
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> Result<(), String> {
        match self.top()? {
            Value::Sequence(list) => list.extend(items),
            Value::Opaque => {}
            _ => return Err("an item for something that is no list".into()),
        }
        Ok(())
    }

    fn top(&mut self) -> Result<&mut Value<'a>, String> {
        let top = *self.stack.last().ok_or_else(empty)?;
        self.store.get_mut(top).ok_or_else(empty)
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let top = *self.stack.last().ok_or_else(empty)?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let id = *self.memo.get(&key).ok_or_else(|| format!("value {key} is used before it is there"))?;
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        let id = self.store.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let start = self.stack.len().checked_sub(1).ok_or_else(empty)?;
        self.above_mark(start)?;
        self.stack.pop().ok_or_else(empty)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("a list without a beginning")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    /// Values below an open mark are out of reach.
    fn above_mark(&self, start: usize) -> Result<(), String> {
        if self.marks.last().is_some_and(|mark| start < *mark) { Err(empty()) } else { Ok(()) }
    }

    /// An integer of `length` bytes; one that is too large for a size becomes opaque.
    fn long(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.take(length)?;
        let mut word = [if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xFF } else { 0 }; 8];
        let value = match word.get_mut(..bytes.len()) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(word))
            }
            None => Value::Opaque,
        };
        self.push(value)
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "a text that is not UTF-8")?;
        self.push(Value::Text(text))
    }

    fn opaque(&mut self, length: usize) -> Result<(), String> {
        self.take(length)?;
        self.push(Value::Opaque)
    }

    /// Text up to the next line end.
    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or_else(cut)?;
        let line = std::str::from_utf8(self.take(end)?).map_err(|_| "a name that is not UTF-8")?;
        self.take(1)?;
        Ok(line)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn length4(&mut self) -> Result<usize, String> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Result<usize, String> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| cut())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut)?;
        self.rest = rest;
        Ok(taken)
    }
}

fn empty() -> String {
    "an instruction that takes more values than there are".into()
}

fn cut() -> String {
    "it ends in the middle of an instruction".into()
}
