//! The data sets that have a name: their files, where those can be had, and what they must be.
//!
//! Sizes and SHA-256 of what is downloaded are those that TensorFlow Datasets pins
//! (`url_checksums/{mnist,fashion_mnist,cifar10,cifar100,svhn_cropped}.txt`); those of the unpacked
//! IDX files were taken from copies whose packed or unpacked MD5 the sets' authors publish.

/// A named data set and the files it is downloaded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownSet {
    /// Name for `--data`, and of its folder in a data folder.
    pub name: &'static str,
    /// What the pictures are, for people.
    pub about: &'static str,
    /// What is downloaded.
    pub remote: &'static [RemoteFile],
}

/// A file to download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its name at every mirror.
    pub name: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: &'static str,
    /// Base addresses, tried in this order: the file is at `BASE/name`.
    pub mirrors: &'static [&'static str],
    /// What becomes of it.
    pub holds: Holds,
}

/// What a downloaded file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A file of the set.
    Itself,
    /// One file of the set in gzip, which stays packed. Mirrors pack anew, so another packing of the
    /// same content is as good.
    Gzip(Content),
    /// Files of the set in a gzip tar archive.
    Archive(&'static [Member]),
}

/// An unpacked file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: &'static str,
}

/// A file within an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path in the archive; the last part is its name in the set's folder.
    pub path: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Member {
    /// Its name in the set's folder.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

/// A file of a set as it lies in the set's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetFile {
    /// Its name; a file that may stay packed is there as `NAME.gz` as well.
    pub name: &'static str,
    /// Its size in bytes, unpacked.
    pub bytes: u64,
}

impl KnownSet {
    /// The set of that name, whatever its case and dashes.
    pub fn find(name: &str) -> Option<&'static Self> {
        let letters = |name: &str| -> String { name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect() };
        SETS.iter().find(|set| letters(set.name) == letters(name))
    }

    /// The files of the set's folder.
    pub fn files(&self) -> Vec<SetFile> {
        let of = |file: &RemoteFile| match file.holds {
            Holds::Itself => vec![SetFile { name: file.name, bytes: file.bytes }],
            Holds::Gzip(content) => vec![SetFile { name: file.name.trim_end_matches(".gz"), bytes: content.bytes }],
            Holds::Archive(members) => members.iter().map(|member| SetFile { name: member.name(), bytes: member.bytes }).collect(),
        };
        self.remote.iter().flat_map(of).collect()
    }

    /// Bytes to download.
    pub fn remote_bytes(&self) -> u64 {
        self.remote.iter().map(|file| file.bytes).sum()
    }
}

/// All of them.
pub const SETS: [KnownSet; 5] = [
    KnownSet { name: "mnist", about: "handwritten digits, 28x28 grey", remote: &MNIST },
    KnownSet { name: "fashion-mnist", about: "clothes, 28x28 grey", remote: &FASHION_MNIST },
    KnownSet { name: "cifar10", about: "animals and vehicles, 32x32 colour", remote: &CIFAR10 },
    KnownSet { name: "cifar100", about: "objects of 100 kinds, 32x32 colour", remote: &CIFAR100 },
    KnownSet { name: "svhn", about: "house numbers from photos, 32x32 colour", remote: &SVHN },
];

const MNIST_MIRRORS: &[&str] = &[
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "http://yann.lecun.com/exdb/mnist",
];

const MNIST: [RemoteFile; 4] = [
    RemoteFile {
        name: "train-images-idx3-ubyte.gz",
        bytes: 9_912_422,
        sha256: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        mirrors: MNIST_MIRRORS,
        holds: Holds::Gzip(Content { bytes: 47_040_016, sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db" }),
    },
    RemoteFile {
        name: "train-labels-idx1-ubyte.gz",
        bytes: 28_881,
        sha256: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        mirrors: MNIST_MIRRORS,
        holds: Holds::Gzip(Content { bytes: 60_008, sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5" }),
    },
    RemoteFile {
        name: "t10k-images-idx3-ubyte.gz",
        bytes: 1_648_877,
        sha256: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        mirrors: MNIST_MIRRORS,
        holds: Holds::Gzip(Content { bytes: 7_840_016, sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7" }),
    },
    RemoteFile {
        name: "t10k-labels-idx1-ubyte.gz",
        bytes: 4_542,
        sha256: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        mirrors: MNIST_MIRRORS,
        holds: Holds::Gzip(Content { bytes: 10_008, sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2" }),
    },
];

const FASHION_MIRRORS: &[&str] = &[
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
];

const FASHION_MNIST: [RemoteFile; 4] = [
    RemoteFile {
        name: "train-images-idx3-ubyte.gz",
        bytes: 26_421_880,
        sha256: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        mirrors: FASHION_MIRRORS,
        holds: Holds::Gzip(Content { bytes: 47_040_016, sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888" }),
    },
    RemoteFile {
        name: "train-labels-idx1-ubyte.gz",
        bytes: 29_515,
        sha256: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        mirrors: FASHION_MIRRORS,
        holds: Holds::Gzip(Content { bytes: 60_008, sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9" }),
    },
    RemoteFile {
        name: "t10k-images-idx3-ubyte.gz",
        bytes: 4_422_102,
        sha256: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        mirrors: FASHION_MIRRORS,
        holds: Holds::Gzip(Content { bytes: 7_840_016, sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b" }),
    },
    RemoteFile {
        name: "t10k-labels-idx1-ubyte.gz",
        bytes: 5_148,
        sha256: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        mirrors: FASHION_MIRRORS,
        holds: Holds::Gzip(Content { bytes: 10_008, sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34" }),
    },
];

const CIFAR10: [RemoteFile; 1] = [RemoteFile {
    name: "cifar-10-binary.tar.gz",
    bytes: 170_052_171,
    sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    mirrors: &[
        "https://www.cs.toronto.edu/~kriz",
        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10",
        "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets",
    ],
    holds: Holds::Archive(&[
        Member { path: "cifar-10-batches-bin/data_batch_1.bin", bytes: 30_730_000 },
        Member { path: "cifar-10-batches-bin/data_batch_2.bin", bytes: 30_730_000 },
        Member { path: "cifar-10-batches-bin/data_batch_3.bin", bytes: 30_730_000 },
        Member { path: "cifar-10-batches-bin/data_batch_4.bin", bytes: 30_730_000 },
        Member { path: "cifar-10-batches-bin/data_batch_5.bin", bytes: 30_730_000 },
        Member { path: "cifar-10-batches-bin/test_batch.bin", bytes: 30_730_000 },
    ]),
}];

const CIFAR100: [RemoteFile; 1] = [RemoteFile {
    name: "cifar-100-binary.tar.gz",
    bytes: 168_513_733,
    sha256: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    mirrors: &["https://www.cs.toronto.edu/~kriz", "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets"],
    holds: Holds::Archive(&[
        Member { path: "cifar-100-binary/train.bin", bytes: 153_700_000 },
        Member { path: "cifar-100-binary/test.bin", bytes: 30_740_000 },
    ]),
}];

const SVHN_MIRRORS: &[&str] = &["http://ufldl.stanford.edu/housenumbers"];

const SVHN: [RemoteFile; 2] = [
    RemoteFile {
        name: "train_32x32.mat",
        bytes: 182_040_794,
        sha256: "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        mirrors: SVHN_MIRRORS,
        holds: Holds::Itself,
    },
    RemoteFile {
        name: "test_32x32.mat",
        bytes: 64_275_384,
        sha256: "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        mirrors: SVHN_MIRRORS,
        holds: Holds::Itself,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_spelling() {
        for name in ["mnist", "Fashion_MNIST", "cifar-10", "CIFAR100", "svhn"] {
            assert!(KnownSet::find(name).is_some(), "{name}");
        }
        assert_eq!(KnownSet::find("imagenet"), None);
    }

    #[test]
    fn every_file_is_pinned_and_has_a_mirror() {
        let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        for file in SETS.iter().flat_map(|set| set.remote) {
            assert!(is_hash(file.sha256) && file.bytes > 0 && !file.mirrors.is_empty(), "{}", file.name);
            assert!(file.mirrors.iter().all(|base| base.starts_with("http") && !base.ends_with('/')), "{}", file.name);
            match file.holds {
                Holds::Itself => {}
                Holds::Gzip(content) => assert!(is_hash(content.sha256) && file.name.ends_with(".gz")),
                Holds::Archive(members) => assert!(members.iter().all(|m| m.bytes > 0 && !m.name().is_empty())),
            }
        }
        let names: Vec<&str> = KnownSet::find("cifar10").unwrap().files().iter().map(|file| file.name).collect();
        assert_eq!(names[0], "data_batch_1.bin");
        assert_eq!(KnownSet::find("mnist").unwrap().files()[3], SetFile { name: "t10k-labels-idx1-ubyte", bytes: 10_008 });
    }
}
