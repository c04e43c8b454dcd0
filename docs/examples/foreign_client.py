"""A client that has nothing of Millrace: it learns the contracts by reflection, submits a document and finds it.

    pip install grpcio grpcio-reflection
    millrace up --json          # prints the addresses
    python foreign_client.py 127.0.0.1:INGEST 127.0.0.1:INDEXER
"""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Service:
    """A service whose messages are read off the server itself."""

    def __init__(self, address, name):
        self.channel = grpc.insecure_channel(address.removeprefix("http://"))
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.methods = pool.FindServiceByName(name).methods_by_name
        self.name = name

    def call(self, method, timeout=30, **fields):
        described = self.methods[method]
        request = GetMessageClass(described.input_type)(**fields)
        make = self.channel.unary_stream if described.server_streaming else self.channel.unary_unary
        rpc = make(
            f"/{self.name}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        return rpc(request, timeout=timeout)


def main(ingest_address, indexer_address):
    ingest = Service(ingest_address, "millrace.ingest.v1.IngestService")
    search = Service(indexer_address, "millrace.indexer.v1.SearchService")
    document = {"tenant": "default", "document_id": "foreign/hello.md"}
    body = b"# Lighthouses\n\nThe keeper lights the lamp at dusk so that ships find the harbour.\n"
    receipt = ingest.call("SubmitDocument", body=body, media_type="text/markdown", **document).receipt
    print(f"accepted: revision {receipt.revision}, trace {receipt.trace_id}")
    for change in ingest.call("WatchDocument", timeout=60, revision=receipt.revision, **document):
        state = change.document.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number[change.document.state]
        print(f"state: {state.name}")
    hits = search.call("Search", tenant="default", text="Who guides vessels at night?", k=3).hits
    for hit in hits:
        print(f"{hit.score:.3f}  {hit.document_id}  {' > '.join(hit.section)}  {hit.text!r}")
    if not any(hit.document_id == document["document_id"] for hit in hits):
        sys.exit("the document was not found")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
