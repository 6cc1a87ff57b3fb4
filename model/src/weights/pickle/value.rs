//! What a pickle of tensors can hold.

use safetensors::Dtype;

/// Position of a value in a [`Store`].
pub(super) type Id = u32;

/// A value. Parts are named by their position, so that neither deep nesting nor cycles can exhaust the stack.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    /// Something that tensors do not depend on: a number with a fraction, bytes, a device, a namespace.
    Opaque,
    /// `None`
    None,
    /// An integer or a truth value.
    Int(i64),
    /// Text.
    Text(&'a str),
    /// A tuple or a list.
    Sequence(Vec<Id>),
    /// A dictionary, in the order of insertion.
    Dict(Vec<(Id, Id)>),
    /// One of the callables that files of tensors name.
    Global(Global),
    /// Elements in memory.
    Storage(Storage<'a>),
    /// A view of a storage.
    Tensor(Tensor<'a>),
}

/// A named object of Python that a pickle may refer to. Nothing else is accepted, and none is ever called: each stands
/// for what it would return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`, and its predecessor with fewer arguments.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`, whose first argument is the tensor.
    RebuildParameter,
    /// `torch.Size`
    Size,
    /// `torch.FloatStorage` and its like.
    Storage(Dtype),
    /// An object without tensors: `argparse.Namespace`, `torch.device`, a `torch.dtype`, a set.
    Opaque,
}

/// A storage: `key` names its bytes in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    pub(super) dtype: Dtype,
    pub(super) key: &'a str,
    pub(super) elements: usize,
}

/// A view of a storage; offset and strides count elements.
#[derive(Clone, Debug)]
pub(super) struct Tensor<'a> {
    pub(super) storage: Storage<'a>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl Global {
    /// The object of this module and name, if it is on the list.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        let found = match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Self::RebuildParameter,
            ("torch", "Size") => Self::Size,
            ("torch", "FloatStorage") => Self::Storage(Dtype::F32),
            ("torch", "HalfStorage") => Self::Storage(Dtype::F16),
            ("torch", "BFloat16Storage") => Self::Storage(Dtype::BF16),
            ("torch", "DoubleStorage") => Self::Storage(Dtype::F64),
            ("torch", "LongStorage") => Self::Storage(Dtype::I64),
            ("torch", "IntStorage") => Self::Storage(Dtype::I32),
            ("torch", "ShortStorage") => Self::Storage(Dtype::I16),
            ("torch", "CharStorage") => Self::Storage(Dtype::I8),
            ("torch", "ByteStorage") => Self::Storage(Dtype::U8),
            ("torch", "BoolStorage") => Self::Storage(Dtype::BOOL),
            ("torch", "device" | "float32" | "float16" | "bfloat16" | "float64" | "int64" | "int32" | "bool")
            | ("argparse", "Namespace")
            | ("_codecs", "encode")
            | ("builtins" | "__builtin__", "set") => Self::Opaque,
            _ => return None,
        };
        Some(found)
    }
}

/// The values of a pickle.
#[derive(Debug, Default)]
pub(super) struct Store<'a>(Vec<Value<'a>>);

impl<'a> Store<'a> {
    /// The most values of one file; a checkpoint of a hundred thousand tensors has three million.
    const LIMIT: usize = 1 << 23;

    pub(super) fn add(&mut self, value: Value<'a>) -> Result<Id, String> {
        if self.0.len() >= Self::LIMIT {
            return Err(format!("it has more than {} values", Self::LIMIT));
        }
        self.0.push(value);
        Ok((self.0.len() - 1) as Id)
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        self.0.get(id as usize).unwrap_or(&Value::Opaque)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Value<'a>> {
        self.0.get_mut(id as usize)
    }

    /// The items of a tuple or list.
    pub(super) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A size, a position or a count.
    pub(super) fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Every storage that is referred to.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.0.iter().filter_map(|value| if let Value::Storage(storage) = value { Some(storage) } else { None })
    }
}
