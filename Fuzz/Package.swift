// swift-tools-version: 6.1
import PackageDescription

// Everything that reads octets of others under libFuzzer. A package of its own, since the root package must build without the
// flags that this needs; deploy/fuzz gives them, builds it and runs it.
let package = Package(
    name: "mat-fuzz",
    dependencies: [.package(name: "mat", path: "..")],
    targets: [
        .systemLibrary(name: "CLibFuzzer"),
        .executableTarget(name: "mat-fuzz", dependencies: ["CLibFuzzer", .product(name: "MATFuzzing", package: "mat")]),
    ],
    swiftLanguageModes: [.v6]
)
