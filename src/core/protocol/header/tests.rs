use super::*;

fn written(header: &RequestHeader<'_>) -> Vec<u8> {
    let mut writer = Writer::new();
    header.encode(&mut writer).unwrap();
    writer.into_bytes().to_vec()
}

#[test]
fn a_request_header_reads_back_in_each_of_its_versions() {
    for (api_key, api_version, header_bytes) in [(7, 0, 8), (7, 1, 13), (0, 8, 13), (0, 9, 14), (18, 4, 14)] {
        let client_id = (header_bytes > 8).then(|| "abc".into());
        let header = RequestHeader { api_key, api_version, correlation_id: -5, client_id };
        let bytes = written(&header);
        assert_eq!(bytes.len(), header_bytes);
        assert_eq!(RequestHeader::decode(&mut Reader::new(&bytes)), Ok(header));
        for end in 0..bytes.len() {
            assert!(RequestHeader::decode(&mut Reader::new(&bytes[..end])).is_err());
        }
    }
}

#[test]
fn a_client_id_may_be_null_and_is_never_compact() {
    let bytes = written(&RequestHeader { api_key: 3, api_version: 12, correlation_id: 1, client_id: None });
    assert_eq!(bytes, [0, 3, 0, 12, 0, 0, 0, 1, 255, 255, 0]);
    assert_eq!(RequestHeader::decode(&mut Reader::new(&bytes)).unwrap().client_id, None);
}

#[test]
fn tagged_fields_of_a_request_header_are_skipped() {
    let bytes = [0, 3, 0, 12, 0, 0, 0, 1, 0, 1, b'c', 1, 9, 2, 0, 0, 77];
    let mut reader = Reader::new(&bytes);
    assert_eq!(RequestHeader::decode(&mut reader).unwrap().client_id, Some("c".into()));
    assert_eq!(reader.remaining(), 1);
}

#[test]
fn a_header_with_an_unknown_api_key_is_refused() {
    let bytes = [0, 52, 0, 0, 0, 0, 0, 1, 255, 255];
    let refused = HeaderError::UnknownApi { api_key: 52 };
    assert_eq!(RequestHeader::decode(&mut Reader::new(&bytes)), Err(refused));
}

#[test]
fn a_frame_begins_with_the_size_of_all_that_follows() {
    let mut writer = begin_response(ApiKey::Metadata, 9, 3);
    writer.bytes(b"body");
    assert_eq!(finish_frame(writer).unwrap().as_ref(), b"\0\0\0\x09\0\0\0\x03\0body");

    let writer = begin_response(ApiKey::ApiVersions, 3, 3);
    assert_eq!(finish_frame(writer).unwrap().as_ref(), [0, 0, 0, 4, 0, 0, 0, 3]);

    let header = RequestHeader { api_key: 18, api_version: 0, correlation_id: 2, client_id: None };
    let frame = finish_frame(begin_request(&header).unwrap()).unwrap();
    assert_eq!(frame.as_ref(), [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 2, 255, 255]);
}

#[test]
fn a_response_header_reads_back() {
    for (key, version) in [(ApiKey::Fetch, 11), (ApiKey::Fetch, 12), (ApiKey::ApiVersions, 4)] {
        let mut writer = Writer::new();
        encode_response_header(&mut writer, key, version, 77);
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!(decode_response_header(&mut reader, key, version), Ok(77));
        assert_eq!(reader.remaining(), 0);
    }
}
