// swift-tools-version: 6.2
import PackageDescription

// Programs of others, as it were: what they use of MAT is in its products MATClient and MATSignal. A package of its own, so that it sees no more than
// another package does. deploy/build builds it with the tests, which run it (NamespaceTests).

let client: [Target.Dependency] = [.product(name: "MATClient", package: "mat"), .product(name: "MATSignal", package: "mat")]

let package = Package(
    name: "mat-examples",
    // Elsewhere: .package(url: "https://...", from: "0.2.0"), of where you have MAT from.
    dependencies: [.package(name: "mat", path: "..")],
    targets: [
        .executableTarget(name: "example-lookup", dependencies: client),
        .executableTarget(name: "example-watch", dependencies: client),
        .executableTarget(name: "example-visit", dependencies: client),
        .executableTarget(name: "example-decode", dependencies: [.product(name: "MATSignal", package: "mat")]),
    ],
    swiftLanguageModes: [.v6]
)

// As in the product's Package.swift: a warning ends the build where deploy/check or CI asks for it.
if Context.environment["MAT_STRICT"] != nil {
    for target in package.targets { target.swiftSettings = (target.swiftSettings ?? []) + [.treatAllWarnings(as: .error)] }
}
