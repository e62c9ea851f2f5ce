"""Invoice statement: quantity times price, tax on the subtotal, and the total that falls due."""

from lowrank.data.kinds.kind import Field, Kind, between, choice, company, day

KIND = Kind(
    name="invoice_statement",
    title="Invoice Statement",
    instruction="Write an invoice statement in Markdown using only the facts given.",
    fields={
        "customer": Field("customer", "name", company),
        "item": Field(
            "item",
            "text",
            choice(
                "steel brackets|oak panels|copper coils|glass jars|pump valves|cotton rolls|sensor kits|paper drums"
            ),
        ),
        "quantity": Field("quantity", "count", between("21", "989", "1")),
        "price": Field("unit price", "usd", between("1.15", "98.95", "0.01")),
        "subtotal": Field("subtotal", "usd", "quantity * price"),
        "tax_rate": Field("tax rate", "rate", between("3.05", "24.95", "0.05")),
        "tax": Field("tax", "usd", "subtotal * tax_rate / 100"),
        "total": Field("total", "usd", "subtotal + tax"),
        "due_date": Field("due date", "date", day),
    },
    sections={
        "Bill To": (
            (
                "This invoice is [addressed|issued|sent] to {customer}.",
                "[Customer|Billed to]: {customer}.",
                "We [invoice|bill] {customer} for the goods below.",
            ),
        ),
        "Items": (
            (
                "[Item|Goods]: {item}, quantity {quantity}, unit price {price}.",
                "[Delivered|Supplied]: {item} in a quantity of {quantity} at a unit price of {price}.",
                "We [delivered|supplied] {item}, quantity {quantity}, at a unit price of {price}.",
            ),
            (
                "The subtotal [is|comes to|amounts to] {subtotal}.",
                "This [gives|makes] a subtotal of {subtotal}.",
            ),
            (
                "All prices are [stated|given|quoted] before tax.",
                "Prices [exclude|do not include] any tax.",
            ),
        ),
        "Amount Due": (
            (
                "At a tax rate of {tax_rate}, tax [is|comes to] {tax} and the total is {total}.",
                "[Adding|Including] tax of {tax} at a tax rate of {tax_rate}, the total is {total}.",
                "The total [is|comes to] {total}, including tax of {tax} at a tax rate of {tax_rate}.",
            ),
        ),
        "Terms": (
            (
                "[Please pay|Payment is due] by {due_date}.",
                "Payment is [expected|required] no later than {due_date}.",
                "The amount [falls|is] due on {due_date}.",
            ),
            (
                "The amount covers the goods [above|listed above] and [all|the] tax.",
                "Goods and tax are [both included|included in full].",
            ),
        ),
    },
)
