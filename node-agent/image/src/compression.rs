//! How a layer or archive is compressed, by its first bytes. What an archive says about itself is not trusted.

use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;
use oci_spec::image::MediaType;

const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 0x08];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A compression this store can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Stored as it is.
    Plain,
    /// gzip (RFC 1952), also of several members.
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Compression {
    fn of(start: &[u8]) -> Self {
        if start.starts_with(&GZIP_MAGIC) {
            Self::Gzip
        } else if start.starts_with(&ZSTD_MAGIC) {
            Self::Zstd
        } else {
            Self::Plain
        }
    }

    /// The media type of a layer compressed this way.
    pub(crate) fn layer_media_type(self) -> MediaType {
        match self {
            Self::Plain => MediaType::ImageLayer,
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }
}

type Sniffed<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Reads plain bytes out of whatever compression the source has.
pub(crate) enum Decompressed<R: Read> {
    Plain(Sniffed<R>),
    Gzip(Box<MultiGzDecoder<Sniffed<R>>>),
    Zstd(zstd::Decoder<'static, BufReader<Sniffed<R>>>),
}

impl<R: Read> Decompressed<R> {
    pub(crate) fn new(mut reader: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(ZSTD_MAGIC.len());
        reader.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut start)?;
        let compression = Compression::of(&start);
        let sniffed = Cursor::new(start).chain(reader);
        Ok(match compression {
            Compression::Plain => Self::Plain(sniffed),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(sniffed))),
            Compression::Zstd => Self::Zstd(zstd::Decoder::new(sniffed)?),
        })
    }

    pub(crate) fn compression(&self) -> Compression {
        match self {
            Self::Plain(_) => Compression::Plain,
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(reader) => reader.read(buffer),
            Self::Zstd(reader) => reader.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn plain(bytes: &[u8]) -> (Compression, Vec<u8>) {
        let mut reader = Decompressed::new(bytes).expect("sniff");
        let compression = reader.compression();
        let mut out = Vec::new();
        reader.read_to_end(&mut out).expect("decompress");
        (compression, out)
    }

    #[test]
    fn each_compression_is_recognised_by_its_first_bytes() {
        let text = b"some text, some text, some text";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).expect("compress");
        let zstd = zstd::encode_all(&text[..], 1).expect("compress");
        assert_eq!(plain(text), (Compression::Plain, text.to_vec()));
        assert_eq!(plain(&gzip.finish().expect("compress")), (Compression::Gzip, text.to_vec()));
        assert_eq!(plain(&zstd), (Compression::Zstd, text.to_vec()));
    }

    #[test]
    fn shorter_than_any_magic_is_plain() {
        assert_eq!(plain(b""), (Compression::Plain, vec![]));
        assert_eq!(plain(&[0x1f]), (Compression::Plain, vec![0x1f]));
    }
}
