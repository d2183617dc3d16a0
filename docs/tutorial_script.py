"""The tutorial's script in bare torch, quoted as the object of docs/tutorial.md: python docs/tutorial_script.py [SEED]

It prints the lines of `python -m src.train experiment=tutorial seed=SEED`, to the digit. The lines, their order and their
names are the page's. Its three typing errors are mended, each with a comment; two lines for the seed are added.
"""

import sys  # added

import torch

torch.manual_seed(int(sys.argv[1]) if len(sys.argv) > 1 else 0)  # added: the page draws other weights at each start

input_size = 4
hidden_size = 4
batch_size = 1

idx2char = ['e', 'h', 'l', 'o']
one_hot_lookup = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
x_data = [1, 2, 2, 2, 3]  # as printed: it spells "hlllo"; "hello" is [1, 0, 2, 2, 3]
y_data = [3, 1, 2, 3, 2]  # "ohlol"
x_one_hot = [one_hot_lookup[x] for x in x_data]  # the page: 查询字典生成独热向量 (look up the one-hot vectors)
inputs = torch.Tensor(x_one_hot).view(-1, batch_size, input_size)  # (time, batch, input)
labels = torch.LongTensor(y_data).view(-1, 1)  # (time, batch)


class Model(torch.nn.Module):
    def __init__(self, input_size, hidden_size, batch_size):
        super(Model, self).__init__()
        self.batch_size = batch_size
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.rnncell = torch.nn.RNNCell(input_size=self.input_size, hidden_size=self.hidden_size)

    def forward(self, input, hidden):
        hidden = self.rnncell(input, hidden)
        return hidden

    def init_hidden(self):
        return torch.zeros(self.batch_size, self.hidden_size)


net = Model(input_size, hidden_size, batch_size)
criterion = torch.nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
for epoch in range(15):
    loss = 0
    optimizer.zero_grad()  # the page: 每一轮训练先把优化器的梯度清零 (set the gradients to zero in each epoch)
    hidden = net.init_hidden()
    print('Predicted string:', end='')
    for input, label in zip(inputs, labels):
        hidden = net(input, hidden)  # mended: printed as `hidde n= net(input,hidden)`
        loss += criterion(hidden, label)  # mended: printed as `loss+ = criterion(hidden,label)`
        _, idx = hidden.max(dim=1)
        print(idx2char[idx.item()], end='')
    loss.backward()  # loss.backward(retain_graph=True)
    optimizer.step()
    print(',Epoch [%d/15] loss=%.4f' % (epoch + 1, loss.item()))  # mended: the last `)` is missing on the page
