//! PyTorch files with more in them than tensors.

use super::Corpus;
use super::torch::Archive;

/// How PyTorch's older form begins: magic number, version, and the machine it was written on.
const LEGACY: &[u8] =
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\r\x00\x00\x00little_endian\x88s.";

const STORAGE: &[u8] = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ";

/// An archive with this description of tensors and one storage of four elements.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.add("archive/data.pkl", pickle);
    archive.add("archive/data/0", &[0; 16]);
    archive.finish()
}

/// A dictionary with one tensor, whose offset, shape and strides are given as instructions.
fn tensor(view: &[u8]) -> Vec<u8> {
    let parts: [&[u8]; 5] =
        [b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(", STORAGE, view, b"\x89}tR", b"s."];
    parts.concat()
}

/// Every way in which a pickle can name or call something, with what people have abused.
pub(crate) fn foreign_code(corpus: &mut Corpus) {
    let command = format!("touch {}", corpus.trap().display());
    let short = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
    let old = |text: &str| format!("V{text}\n").into_bytes();
    let targets = [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("__builtin__", "getattr"),
        ("builtins", "__import__"),
        ("torch", "load"),
        ("torch.serialization", "load"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch.storage", "_load_from_bytes"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("pickle", "loads"),
        ("runpy", "_run_code"),
        ("shutil", "rmtree"),
        ("webbrowser", "open"),
        ("pip", "main"),
        ("collections", "OrderedDict.__reduce__"),
    ];
    for (module, name) in targets {
        let argument = short(&command);
        let calls: [(&str, Vec<u8>); 5] = [
            ("REDUCE", [format!("c{module}\n{name}\n").into_bytes(), argument.clone(), b"\x85R.".to_vec()].concat()),
            (
                "STACK_GLOBAL",
                [short(module), short(name), b"\x93".to_vec(), argument.clone(), b"\x85R.".to_vec()].concat(),
            ),
            ("NEWOBJ", [format!("c{module}\n{name}\n").into_bytes(), argument.clone(), b"\x85\x81.".to_vec()].concat()),
            ("INST", [b"(".to_vec(), old(&command), format!("i{module}\n{name}\n.").into_bytes()].concat()),
            ("OBJ", [format!("(c{module}\n{name}\n").into_bytes(), old(&command), b"o.".to_vec()].concat()),
        ];
        for (way, call) in calls {
            let pickle = [b"\x80\x04".as_slice(), &call].concat();
            let what = format!("{module}.{name} by {way}");
            corpus.weights(&what, "refused", &archive(&pickle));
            corpus.weights(&what, "refused", &[LEGACY, &pickle].concat());
            corpus.weights(&what, "not a weight file", &[b"\x80\x02".as_slice(), &call].concat());
        }
    }
    // Names of the list in places where they would have to be called or built upon.
    let abused: [(&str, &[u8]); 7] = [
        ("a storage that is called", b"\x80\x02ctorch\nFloatStorage\n)R."),
        ("a dictionary that is called", b"\x80\x02})R."),
        ("an extension", b"\x80\x02\x82\x01."),
        (
            "a reference to a module",
            b"\x80\x02(X\x06\x00\x00\x00modulectorch\nFloatStorage\nX\x01\x00\x00\x000K\x00tQ.",
        ),
        ("a reference by text", b"\x80\x02P0\n."),
        ("a buffer out of band", b"\x80\x05\x97."),
        ("no dictionary", b"\x80\x02K\x01."),
    ];
    for (what, pickle) in abused {
        corpus.weights(what, "refused", &archive(pickle));
    }
}

/// Descriptions that would take far more memory or time than they are long.
pub(crate) fn bombs(corpus: &mut Corpus) {
    let huge = [0xFF; 7];
    let lists = |count: usize| [b"\x80\x02".as_slice(), &b"]".repeat(count), &b"a".repeat(count - 1), b"."].concat();
    let pairs = b"\x80\x02](".iter().copied().chain(b"K\x01K\x02\x86".repeat(10_000)).chain(*b"eq\x00");
    let copies: Vec<u8> = pairs.chain(b"ccollections\nOrderedDict\nh\x00\x85R0".repeat(10_000)).collect();
    let doubling = [b"\x80\x02]q\x00".as_slice(), &b"h\x00\x86q\x00".repeat(10_000), b"."].concat();
    let cases: [(&str, Vec<u8>); 9] = [
        ("a text of 2^63 bytes", [b"\x80\x04\x8d\xff".as_slice(), &huge[..6], &[0x7F]].concat()),
        ("a number of 2^31 bytes", b"\x80\x02\x8b\xff\xff\xff\x7f".to_vec()),
        ("lists inside lists", lists(200_000)),
        ("a list that holds itself", b"\x80\x02]q\x00h\x00a.".to_vec()),
        ("copies of a long list", copies),
        ("doubling", doubling),
        ("an endless frame", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec()),
        ("nothing on the stack", b"\x80\x0200000.".to_vec()),
        ("values below a mark", b"\x80\x02K\x01(\x85.".to_vec()),
    ];
    for (what, pickle) in cases {
        corpus.weights(what, "refused", &archive(&pickle));
    }
    // Offset, shape and strides; the storage has four elements.
    let views: [(&str, &[u8]); 8] = [
        ("elements behind the storage", b"K\x04K\x01\x85K\x01\x85"),
        ("more elements than the storage", b"K\x00K\x05\x85K\x01\x85"),
        ("one element shown 2^31 times", b"K\x00J\xff\xff\xff\x7f\x85K\x00\x85"),
        ("a product that overflows", b"K\x00(J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7ft(K\x00K\x00K\x00t"),
        ("a negative stride", b"K\x03K\x04\x85J\xff\xff\xff\xff\x85"),
        ("a negative size", b"K\x00J\xff\xff\xff\xff\x85K\x01\x85"),
        ("a stride for no size", b"K\x00K\x02\x85)"),
        ("strides beyond the storage", b"K\x00K\x02K\x02\x86K\x04K\x01\x86"),
    ];
    for (what, view) in views {
        corpus.weights(what, "refused", &archive(&tensor(view)));
    }
    // Transposed views of one large storage, each of which would be copied.
    let mut many = b"\x80\x02}(".to_vec();
    for index in 0..1000u32 {
        many.extend(b"X\x04\x00\x00\x00");
        many.extend(format!("{index:04}").bytes());
        many.extend(
            b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000",
        );
        many.extend(b"X\x03\x00\x00\x00cpuJ\x00\x00\x04\x00tQK\x00M\x00\x02M\x00\x02\x86K\x01M\x00\x02\x86\x89}tR");
    }
    many.extend(b"u.");
    let mut amplified = Archive::default();
    amplified.add("archive/data.pkl", &many);
    amplified.add("archive/data/0", &vec![0; 4 << 18]);
    corpus.weights("a thousand views of one storage", "more memory", &amplified.finish());
}

/// Archives that lie about their entries.
pub(crate) fn archives(corpus: &mut Corpus) {
    let whole = archive(&tensor(b"K\x00K\x04\x85K\x01\x85"));
    let path = corpus.path("model.bin");
    std::fs::write(&path, &whole).unwrap();
    viral_model::weights::TensorFile::open(&path).unwrap().get("a").unwrap();

    let directory = whole.windows(4).position(|word| word == b"PK\x01\x02").unwrap();
    let second = directory + 4 + whole[directory + 4..].windows(4).position(|word| word == b"PK\x01\x02").unwrap();
    let end = whole.windows(4).rposition(|word| word == b"PK\x05\x06").unwrap();
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let size = whole.len() as u32;
    let cases: [(&str, Vec<u8>); 8] = [
        ("a compressed entry", changed(second + 10, &[8, 0])),
        ("an encrypted entry", changed(second + 8, &[1, 0])),
        ("an entry larger than the file", changed(second + 20, &[size.to_le_bytes(), size.to_le_bytes()].concat())),
        ("an entry of two sizes", changed(second + 24, &[0xFF, 0xFF, 0xFF, 0x0F])),
        ("an entry that begins nowhere", changed(second + 42, &[0xFF, 0xFF, 0xFF, 0x0F])),
        ("two entries in one place", changed(second + 42, &[0, 0, 0, 0])),
        ("more entries than there are", changed(end + 10, &[0xFF, 0xFF])),
        ("a directory that begins nowhere", changed(end + 16, &[0xFF, 0xFF, 0xFF, 0x0F])),
    ];
    for (what, bytes) in cases {
        corpus.weights(what, "archive", &bytes);
    }
    corpus.weights("a wrong checksum", "does not have its checksum", &changed(directory + 16, &[1, 2, 3, 4]));
    let mut twice = Archive::default();
    twice.add("archive/data.pkl", b"\x80\x02}.");
    twice.add("archive/data.pkl", b"\x80\x02}.");
    corpus.weights("two descriptions under one name", "is there twice", &twice.finish());
    let mut several = Archive::default();
    several.add("a/data.pkl", b"\x80\x02}.");
    several.add("b/data.pkl", b"\x80\x02}.");
    corpus.weights("two descriptions", "one `data.pkl`", &several.finish());
    let mut outside = Archive::default();
    outside.add("../../etc/data.pkl", b"\x80\x02}.");
    corpus.weights("a name that leaves the archive", "one `data.pkl`", &outside.finish());
    let mut without = Archive::default();
    without.add("archive/data.pkl", &tensor(b"K\x00K\x04\x85K\x01\x85"));
    corpus.weights("a tensor without a storage", "storage 0 is missing", &without.finish());
    let mut swapped = Archive::default();
    swapped.add("archive/data.pkl", b"\x80\x02}.");
    swapped.add("archive/byteorder", b"big");
    corpus.weights("high bytes first", "the high byte first", &swapped.finish());
}
