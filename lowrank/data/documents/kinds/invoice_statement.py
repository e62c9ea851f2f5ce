"""Invoice statement: quantity times price, tax on the subtotal, and the total that falls due."""

from lowrank.data.documents.kinds.kind import Field, Kind, Sentence, between, choice, company, day

KIND = Kind(
    name="invoice_statement",
    title="Invoice Statement",
    noun="an invoice statement",
    fields={
        "customer": Field("customer", "name", company, ("client", "buyer")),
        "item": Field(
            "item",
            "text",
            choice(
                "steel brackets|oak panels|copper coils|glass jars|pump valves|cotton rolls|sensor kits|paper drums"
            ),
            ("goods",),
        ),
        "quantity": Field("quantity", "count", between("21", "989", "1"), ("number of units",)),
        "price": Field("unit price", "usd", between("1.15", "98.95", "0.01"), ("price per unit", "price each")),
        "subtotal": Field("subtotal", "usd", "quantity * price", ("net amount",)),
        "tax_rate": Field("tax rate", "rate", between("3.05", "24.95", "0.05"), ("VAT rate",)),
        "tax": Field("tax", "usd", "subtotal * tax_rate / 100", ("tax amount", "VAT")),
        "total": Field("total", "usd", "subtotal + tax", ("total due", "gross amount")),
        "due_date": Field("due date", "date", day, ("payment date", "pay by")),
    },
    sections={
        "Bill To": (
            Sentence(
                (
                    "This invoice is addressed to {customer}.",
                    "We invoice {customer} for the goods below.",
                    "The customer is {customer}.",
                    "Billed to: {customer}.",
                    "{customer} ordered and received these goods.",
                ),
                unseen=(
                    "Our client for this delivery is {customer}.",
                    "The buyer named on this statement is {customer}.",
                ),
            ),
        ),
        "Items": (
            Sentence(
                (
                    "Item: {item}, quantity {quantity}, unit price {price}.",
                    "Delivered: {item} in a quantity of {quantity} at a unit price of {price}.",
                    "We supplied {item}, quantity {quantity}, at a unit price of {price}.",
                    "The order was for {item}, with a quantity of {quantity} and a unit price of {price}.",
                    "At a unit price of {price}, we delivered {item} in a quantity of {quantity}.",
                ),
                unseen=(
                    "Goods shipped: {item}, number of units {quantity}, price per unit {price}.",
                    "You received {item}, a quantity of {quantity}, at a price each of {price}.",
                ),
            ),
            Sentence(
                (
                    "The subtotal is {subtotal}.",
                    "This gives a subtotal of {subtotal}.",
                    "Before tax, the subtotal comes to {subtotal}.",
                    "Together they make a subtotal of {subtotal}.",
                    "A subtotal of {subtotal} results.",
                ),
                unseen=("The net amount is {subtotal}.", "Added up, the goods have a net amount of {subtotal}."),
            ),
        ),
        "Amount Due": (
            Sentence(
                (
                    "At a tax rate of {tax_rate}, tax is {tax} and the total is {total}.",
                    "Adding tax of {tax} at a tax rate of {tax_rate}, the total is {total}.",
                    "The total comes to {total}, including tax of {tax} at a tax rate of {tax_rate}.",
                    "Tax of {tax}, at a tax rate of {tax_rate}, brings the total to {total}.",
                    "The tax rate is {tax_rate}, which means tax of {tax} and a total of {total}.",
                ),
                unseen=(
                    "VAT of {tax}, at a VAT rate of {tax_rate}, makes a gross amount of {total}.",
                    "The total due is {total}, of which the tax amount is {tax}, the tax rate being {tax_rate}.",
                ),
            ),
        ),
        "Terms": (
            Sentence(
                (
                    "Please pay by {due_date}.",
                    "Payment is expected no later than {due_date}.",
                    "The amount falls due on {due_date}.",
                    "The due date is {due_date}.",
                    "We ask for payment until {due_date}.",
                ),
                unseen=("Kindly settle this account by {due_date}.", "The date of payment is {due_date}."),
            ),
            Sentence(
                (
                    "The amount covers the goods listed above and all tax.",
                    "Goods and tax are both included.",
                    "Nothing else will be charged for this order.",
                    "Late payment may be charged with interest.",
                    "The goods remain ours until they are paid.",
                ),
                unseen=("No further charge will follow.", "Title passes to the buyer on payment."),
            ),
        ),
    },
)
